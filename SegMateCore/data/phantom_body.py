"""The body's hull: skin, fat, muscle and its fat planes, breasts, arms, thighs, a plain head."""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_frame import NECK_MM, Frame


def ring(canvas: Canvas, half_width, front_y, back_y, power: float, box=None) -> np.ndarray:
    """Superellipse value per voxel for per-slice measures (K,): below 1 inside. Shape of the box (default
    all)."""
    box = box or canvas.whole
    middle = canvas.column((np.asarray(front_y) + back_y) / 2)[box[0]]
    depth = canvas.column((np.asarray(back_y) - front_y) / 2)[box[0]]
    width = canvas.column(half_width)[box[0]]
    return (np.abs(canvas.x[box]) / width) ** np.float32(power) + (
        np.abs(canvas.y[box] - middle) / depth
    ) ** np.float32(power)


def paint_body(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Skin, subcutaneous fat and the muscle hull, with breasts, neck, head and thighs."""
    z = canvas.grid.z_mm
    width, front, back = frame.hull_half_width(z), frame.front_y(z), frame.back_y(z)
    side, ahead, behind = frame.fat_mm(z)
    power = rng.uniform(2.2, 2.6)
    outer = ring(canvas, width + side, front - ahead, back + behind, power)
    trunk = (canvas.z < frame.apex_z + NECK_MM) & (canvas.z > frame.hip_z - 75)
    outer[~trunk] = np.inf
    canvas.paint(canvas.whole, outer < 1, "fat")
    skin_mm = rng.uniform(1.2, 2.2)
    canvas.paint(
        canvas.whole, (outer < 1) & (outer > 1 - power * skin_mm / (width.max() + frame.fat)), "skin"
    )
    if frame.female:
        _paint_breasts(canvas, frame, rng)
    canvas.paint(canvas.whole, (ring(canvas, width, front, back, power) < 1) & trunk, "muscle")
    _paint_ends(canvas, frame)
    _paint_muscle_planes(canvas, frame, rng)
    streaks = canvas.noise(rng, 16.0)
    canvas.paint(canvas.whole, streaks > 2.9 - 0.5 * min(frame.fat / 25, 1.6), "fat", over=("muscle",))


def _paint_muscle_planes(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Thin sheets of fat that part the layers of muscle in the trunk's wall."""
    z_mm = canvas.grid.z_mm
    width, front, back = frame.hull_half_width(z_mm), frame.front_y(z_mm), frame.back_y(z_mm)
    for inset in (rng.uniform(4, 7), rng.uniform(10, 14)):
        value = ring(canvas, np.maximum(width - inset, 20), front + inset, back - inset, 2.4)
        sheet = np.abs(value - 1) < np.float32(rng.uniform(0.008, 0.02) * (1 + frame.fat / 30))
        gaps = canvas.noise(rng, 45.0) > rng.uniform(-0.5, 0.6)
        canvas.paint(canvas.whole, sheet & gaps, "fat", over=("muscle",))


def _paint_ends(canvas: Canvas, frame: Frame) -> None:
    """Thighs below and a plain head above, for grids that reach beyond the torso."""
    for side in (-1, 1):
        path = np.array(
            [
                (side * 84, 8, frame.hip_z - 40),
                (side * 78, 5, frame.hip_z - 180),
                (side * 72, 5, frame.hip_z - 420),
            ]
        )
        for inset, tissue in ((0.0, "fat"), (3 + 0.5 * frame.fat, "muscle")):
            box, distance, _ = canvas.tube(path, np.array([86, 72, 56]) + 0.4 * frame.fat)
            canvas.paint(box, distance < -inset, tissue, over=("outside air", "skin", "fat"))
    z = frame.apex_z + NECK_MM
    middle = (float(frame.front_y(z)) + float(frame.back_y(z))) / 2
    box, value = canvas.ellipsoid((0, middle - 12, z + 72), (74, 92, 92))
    for limit, tissue in ((1.0, "skin"), (0.95, "muscle"), (0.87, "cortical bone"), (0.72, "soft tissue")):
        canvas.paint(box, value < limit, tissue)


def _paint_breasts(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    height = frame.apex_z * rng.uniform(0.3, 0.5)
    front = float(frame.front_y(height)) - float(frame.fat_mm(height)[1])
    bulge, width, tall = rng.uniform(12, 30) + frame.fat, rng.uniform(50, 70), rng.uniform(45, 75)
    gland = rng.uniform(0.1, 0.6)
    for side in (-1, 1):
        centre = (side * rng.uniform(65, 85), front + 14, height)
        box, value = canvas.ellipsoid(centre, (width, bulge, tall))
        canvas.paint(box, value < 1, "fat", over=("outside air", "skin", "fat"))
        canvas.paint(box, value + 0.25 * canvas.noise(rng, 14.0, box) < gland, "soft tissue", over=("fat",))


def paint_limbs(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Arms beside the body (one patient in four) or raised, each with its bone."""
    raised = rng.random() < 0.75
    radius = rng.uniform(30, 40) + 0.5 * frame.fat
    top = frame.apex_z
    shoulder = frame.chest_half_width + rng.uniform(42, 56)
    for side in (-1, 1):
        if raised:
            path = [
                (side * (shoulder - 8), 15, top - 20),
                (side * (shoulder + 15), 5, top + 30),
                (side * (shoulder - 5), -15, top + 150),
            ]
        else:
            out = (
                float(frame.hull_half_width(-60)) + float(frame.fat_mm(-60)[0]) + radius + rng.uniform(4, 22)
            )
            path = [
                (side * shoulder, 15, top - 25),
                (side * out, 15, top - 110),
                (side * out, 5, -40),
                (side * (out + 5), -20, frame.hip_z),
            ]
        box, distance, _ = canvas.tube(path, radius)
        canvas.paint(box, distance < 0, "fat", over=("outside air", "skin"))
        canvas.paint(box, distance < -0.35 * frame.fat - 3, "muscle", over=("fat", "skin"))
        box, distance, _ = canvas.tube(path, rng.uniform(10.5, 12.5))
        free = ("fat", "muscle", "outside air", "skin")
        canvas.paint(box, distance < 0, "cortical bone", over=free)
        canvas.paint(box, distance < -5, "spongy bone", over=("cortical bone",))
        box, value = canvas.ellipsoid(path[0], (24, 24, 24))
        canvas.paint(box, value < 1, "cortical bone", over=free)
        canvas.paint(box, value < 0.75, "spongy bone", over=("cortical bone",))
