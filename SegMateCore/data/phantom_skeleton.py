"""Bones of the synthetic torso: spine with canal and cord, ribs, sternum, shoulder girdle, pelvis, femurs.

Each function paints one part on a `Canvas`, placed by the `Frame`. The spinal cord's label is the content
of the dural sac from the neck down to the sacrum, as public annotations have it, not the cord's tissue
alone.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_frame import Frame

WALLS = ("fat", "muscle", "skin")
"""What limb girdle bones may replace: never lungs or organs."""


def vertebra_borders(frame: Frame) -> np.ndarray:
    """Ascending heights (mm) of the lower ends of L5..T1, and T1's upper end: (18,)."""
    sizes = np.linspace(1.3, 0.76, 17)
    sizes[0] *= 0.9
    top, bottom = frame.apex_z + 10, frame.crest_z - 42
    return bottom + np.concatenate([[0.0], np.cumsum(sizes / sizes.sum() * (top - bottom))])


def paint_spine(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Vertebral bodies, discs, arches and processes, then the canal with dural sac and cord."""
    borders = vertebra_borders(frame)
    neck = borders[-1] + 16.5 * np.arange(1, 8)
    borders = np.concatenate([borders, neck])
    z_mm = canvas.grid.z_mm
    low, high = frame.crest_z - 42, borders[-1]
    box = canvas.box((-75, -canvas_half_depth(frame), low), (75, canvas_half_depth(frame), high))
    z = canvas.z[box]
    level = np.clip(np.searchsorted(borders, z) - 1, 0, len(borders) - 2)
    height = (borders[level + 1] - borders[level]).astype(np.float32)
    within = (z - borders[level].astype(np.float32)) / height
    x = canvas.x[box] - canvas.column(frame.spine_x(z_mm))[box[0]]
    y = canvas.y[box]
    radius = canvas.column(frame.body_radius(z_mm))[box[0]]
    to_body = y - canvas.column(frame.vertebra_y(z_mm))[box[0]]
    to_canal = y - canvas.column(frame.cord_y(z_mm))[box[0]]
    waist = 1 - 0.1 * np.sin(np.pi * np.clip(within, 0, 1))
    reach = np.sqrt((x / (1.16 * waist)) ** 2 + (to_body / (0.92 * waist)) ** 2)
    disc_share = rng.uniform(0.14, 0.24) * (1 - 0.3 * (z > 0))
    inside = (reach < radius) & (z > low)
    canvas.paint(box, inside, "spongy bone")
    plate = (within < disc_share + 1.6 / height) | (within > 1 - 1.6 / height)
    canvas.paint(box, inside & ((reach > radius - rng.uniform(1.6, 2.6)) | plate), "cortical bone")
    canvas.paint(box, inside & (within < disc_share), "disc")
    _paint_arch(canvas, box, frame, rng, (x, to_canal, within))
    paint_canal(canvas, frame, rng)


def canvas_half_depth(frame: Frame) -> float:
    return 1.6 * frame.depth + frame.fat


def _paint_arch(canvas: Canvas, box, frame: Frame, rng: np.random.Generator, place) -> None:
    """Pedicles and lamina around the canal, transverse and spinous processes. place: x, y - canal's y,
    share of
    the vertebra's height."""
    x, y, within = place
    canal = frame.canal_radius
    wide = np.abs(x)
    ring_value = np.sqrt((x / 1.2) ** 2 + y**2)
    arch = (ring_value > canal) & (ring_value < canal + rng.uniform(5, 7.5)) & (within > 0.22)
    arch &= (y > -2) | (within > 0.5)
    facet = ((wide - canal - 8) ** 2 + (y - 6) ** 2 < 7.5**2) & (np.abs(within - 0.12) > 0.04)
    long = rng.uniform(24, 36)
    spinous = (
        (wide < 3.2 + 2 * (within < 0.45)) & (y > canal) & (y < canal + long) & (np.abs(within - 0.4) < 0.27)
    )
    transverse = (
        (np.abs(y - 3 - 0.12 * wide) < 4.2) & (wide < rng.uniform(30, 40)) & (np.abs(within - 0.68) < 0.17)
    )
    bone = (arch | facet | spinous | (transverse & (wide > canal + 3))) & (y > -canal - 3)
    free = ("muscle", "fat")
    canvas.paint(box, bone, "cortical bone", over=free)
    core = (np.abs(ring_value - canal - 3.5) < 1.2) & arch | (spinous & (wide < 2)) | (facet & (within < 0.2))
    canvas.paint(box, core & bone, "spongy bone", over=("cortical bone",))


def paint_canal(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Epidural fat, dural sac (label: spinal cord) and the cord's tissue inside it."""
    z_mm = canvas.grid.z_mm
    end = frame.crest_z - 42 - rng.uniform(5, 35)
    box = canvas.box((-40, -canvas_half_depth(frame), end), (40, canvas_half_depth(frame), np.inf))
    x = canvas.x[box] - canvas.column(frame.spine_x(z_mm))[box[0]]
    y = canvas.y[box] - canvas.column(frame.cord_y(z_mm))[box[0]]
    heights = [end, -140, -60, 0.5 * frame.apex_z, frame.apex_z]
    canal = frame.canal_radius * np.interp(z_mm, heights, [0.95, 1.0, 0.92, 0.85, 0.98])
    reach = np.sqrt((x / 1.18) ** 2 + y**2) / canvas.column(canal)[box[0]]
    below = canvas.z[box] > end
    canvas.paint(box, (reach < 1) & below, "fat")
    canvas.paint(box, (reach < rng.uniform(0.82, 0.95)) & below, "cerebrospinal fluid")
    conus = rng.uniform(-95, -55)
    cord = canvas.column(
        np.interp(z_mm, [conus - 15, conus, conus + 20], [0.25, 0.4, rng.uniform(0.5, 0.65)])
    )
    canvas.paint(box, (reach < cord[box[0]]) & below, "spinal cord")


def rib_path(frame: Frame, side: int, number: int, attach_z: float, drop_mm: float) -> np.ndarray:
    """(N, 3) points of one rib (number 0..11) from the spine along the chest wall, and its cartilage."""
    last = (128, 140, 150, 154, 156, 158, 158, 150, 142, 130, 85, 55)[number]
    angle = np.deg2rad(np.linspace(16, last, 10 if number < 10 else 6))
    z = attach_z + 4 - drop_mm * (1 - np.cos(angle)) / 2
    width, front, back = frame.chest_contour(z)
    middle, depth = (front + back) / 2, (back - front) / 2
    x = side * (width + 5) * np.sin(angle) ** 0.85
    y = middle + (depth + 5) * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.85
    spine = np.array(
        [
            [side * 13 + float(frame.spine_x(attach_z)), float(frame.cord_y(attach_z)) - 8, attach_z],
            [side * 30 + float(frame.spine_x(attach_z)), float(frame.cord_y(attach_z)) + 8, attach_z + 3],
        ]
    )
    return np.concatenate([spine, np.stack([x, y, z], 1)[1:]])


def paint_ribs(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Twelve pairs of ribs with cartilage, and the sternum."""
    borders = vertebra_borders(frame)
    steep, radius = rng.uniform(0.75, 1.15), rng.uniform(4.2, 5.6) * frame.size
    calcified = rng.random() < 0.3
    for side in (-1, 1):
        for number in range(12):
            attach = borders[17 - number] - 6
            drop = steep * (28, 45, 60, 72, 82, 92, 100, 104, 104, 98, 70, 45)[number]
            path = rib_path(frame, side, number, attach, drop)
            bony = 9 if number < 10 else len(path)
            box, distance, _ = canvas.tube(path[:bony], radius)
            canvas.paint(box, distance < 0, "cortical bone")
            canvas.paint(box, distance < -rng.uniform(1.8, 2.8), "spongy bone")
            if number < 10:
                box, distance, _ = canvas.tube(path[bony - 1 :], radius)
                canvas.paint(box, distance < 0, "spongy bone" if calcified and rng.random() < 0.5 else "disc")
    _paint_sternum(canvas, frame, rng)


def _paint_sternum(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    z_mm, top = canvas.grid.z_mm, frame.apex_z
    low, high = rng.uniform(0.02, 0.15) * top, rng.uniform(0.82, 0.9) * top
    box = canvas.heights(low, high)
    half = np.interp(z_mm, [low, low + 25, 0.55 * top, 0.68 * top, high], [6, 17, 16, 26, 30]) * rng.uniform(
        0.85, 1.1
    )
    inner = canvas.column(frame.chest_contour(z_mm)[1])[box[0]]
    depth = canvas.y[box] - inner + 8
    width = canvas.column(half)[box[0]]
    value = (np.abs(canvas.x[box]) / width) ** 4 + (np.abs(depth) / 6.5) ** 4
    shown = (value < 1) & (canvas.z[box] > low) & (canvas.z[box] < high)
    canvas.paint(box, shown, "cortical bone")
    canvas.paint(box, shown & (value < 0.25), "spongy bone")


def paint_shoulders(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Scapulae and clavicles, with axillary fat."""
    top, chest = frame.apex_z, frame.chest_half_width
    for side in (-1, 1):
        box, value = canvas.ellipsoid((side * (chest + 20), -5, top - 60), (16, 34, 34))
        canvas.paint(box, value < 1, "fat", over=("muscle",))
        tilt = -side * rng.uniform(22, 40)
        back = float(frame.back_y(top - 70))
        box, value = canvas.ellipsoid(
            (side * (0.8 * chest + 8), back - 20, top - 68), (50, 4.5, 72), (8, 0, tilt)
        )
        canvas.paint(box, value < 1, "cortical bone", over=WALLS)
        spine = [
            (side * 0.5 * chest, back - 6, top - 45),
            (side * (chest + 10), back - 22, top - 22),
            (side * (chest + 42), 12, top + 2),
        ]
        box, distance, _ = canvas.tube(spine, [3.5, 6, 7])
        canvas.paint(box, distance < 0, "cortical bone", over=WALLS)
        front = float(frame.chest_contour(top - 8)[1])
        clavicle = [
            (side * 20, front - 6, top - 12),
            (side * 60, front - 4, top + 2),
            (side * (chest + 35), 2, top + 8),
        ]
        box, distance, _ = canvas.tube(clavicle, 6)
        canvas.paint(box, distance < 0, "cortical bone", over=WALLS)
        canvas.paint(box, distance < -2.5, "spongy bone", over=("cortical bone",))


def paint_pelvis(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Sacrum, iliac wings, hip joints, pubis and ischium, femurs."""
    crest, hip, scale = frame.crest_z, frame.hip_z, frame.size**0.5
    sacrum_y = float(frame.cord_y(crest - 85))
    shells = []
    shells.append(canvas.ellipsoid((0, sacrum_y - 4, crest - 85), (52 * scale, 17, 56), (18, 0, 0)))
    for side in (-1, 1):
        middle = (side * 88 * scale, 0.45 * sacrum_y - 10, crest - 52)
        shells.append(canvas.ellipsoid(middle, (8.5, 74 * scale, 62), (0, side * 14, side * 40)))
        joint = (side * 88 * scale, 2.0, hip)
        shells.append(canvas.ellipsoid((joint[0] + side * -4, 4, hip + 10), (34, 34, 36)))
        for path, radius in (
            ([joint, (side * 45, -38, hip - 8), (0, -48, hip - 22)], [13, 9, 11]),
            ([joint, (side * 66, 32, hip - 45), (side * 52, 28, hip - 62)], [16, 15, 12]),
            ([(side * 52, 28, hip - 62), (side * 15, -38, hip - 38)], [9, 7]),
        ):
            box, distance, _ = canvas.tube(path, radius)
            canvas.paint(box, distance < 0, "cortical bone", over=(*WALLS, "outside air"))
            canvas.paint(box, distance < -3, "spongy bone", over=("cortical bone",))
    for box, value in shells:
        canvas.paint(box, value < 1, "cortical bone", over=WALLS)
        canvas.paint(box, value < 0.72, "spongy bone", over=("cortical bone", *WALLS))
    for side in (-1, 1):
        joint = (side * 88 * scale, 2.0, hip)
        box, value = canvas.ellipsoid(joint, (27, 27, 27))
        canvas.paint(box, value < 1, "fat", over=("spongy bone", "cortical bone"))
        shaft = [
            joint,
            (side * 118 * scale, 14, hip - 32),
            (side * 118 * scale, 6, hip - 110),
            (side * 105, 0, hip - 420),
        ]
        box, distance, _ = canvas.tube(shaft, [23, 17, 15, 14])
        canvas.paint(box, distance < 0, "cortical bone")
        canvas.paint(box, distance < -4, "spongy bone")
