"""Cavities and deep muscles: where lungs and abdominal organs may lie, the diaphragm, loin and hip
muscles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data.phantom_body import ring
from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_frame import Frame


@dataclass(frozen=True)
class Diaphragm:
    """A dome on each side: centre (x, y), height of the top, half widths, and how far it falls to the
    wall."""

    right: tuple[float, float, float]
    left: tuple[float, float, float]
    width: float
    fall: float
    posterior_fall: float

    @classmethod
    def draw(cls, frame: Frame, rng: np.random.Generator) -> Diaphragm:
        uniform, half = rng.uniform, frame.chest_half_width
        return cls(
            right=(-0.5 * half, uniform(-18, 5), 0.0),
            left=(0.52 * half, uniform(-12, 8), -uniform(5, 28)),
            width=half,
            fall=uniform(32, 62),
            posterior_fall=uniform(28, 75),
        )

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z of the diaphragm at deformed x and y (any shape), mm."""
        domes = []
        for side, (x0, y0, top) in ((-1, self.right), (1, self.left)):
            outward = (x - np.float32(x0)) * np.float32(side / (0.5 * self.width))
            outward = np.where(outward > 0, outward, 0.62 * outward)
            across = (y - np.float32(y0)) / np.float32(0.85 * self.width)
            away = outward**2 + across**2
            drop = self.fall * away**1.25 + self.posterior_fall * np.clip(across, 0, 1.6) ** 2
            domes.append(np.float32(top) - drop)
        return np.maximum(*domes)


def paint_cavities(
    canvas: Canvas, frame: Frame, diaphragm: Diaphragm, rng: np.random.Generator
) -> np.ndarray:
    """Lungs above the diaphragm (split at the mediastinal plane), fat below, the diaphragm between.

    Returns the (K, J, I) mask of both cavities.
    """
    z_mm = canvas.grid.z_mm
    chest_width, chest_front, chest_back = frame.chest_contour(z_mm)
    wall = frame.wall
    loin = frame.back_y(z_mm) - rng.uniform(13, 24)
    share = np.interp(z_mm, [-120, -30], [1.0, 0.0])
    loin = np.where(z_mm < frame.crest_z - 20, np.minimum(loin, frame.cord_y(z_mm) - 5), loin)
    width = np.minimum(frame.hull_half_width(z_mm) - wall, chest_width + 200 * share)
    pelvis = [frame.hip_z - 35, frame.hip_z + 25, frame.crest_z - 35, frame.crest_z + 10]
    width = np.minimum(width, np.interp(z_mm, pelvis, [42, 62, 108, 400]))
    front = share * (frame.front_y(z_mm) + 0.75 * wall) + (1 - share) * chest_front
    back = share * loin + (1 - share) * chest_back
    inside = ring(canvas, np.maximum(width, 20), front, np.maximum(back, front + 60), 2.25) < 1
    inside &= (canvas.z < frame.apex_z) & (canvas.z > frame.hip_z - 35)
    canvas.paint(canvas.whole, inside, "fat")
    box = canvas.heights(-0.9 * frame.chest_half_width - 80, frame.apex_z)
    above = canvas.z[box] - diaphragm.height(canvas.x[box], canvas.y[box])
    _paint_erectors(canvas, frame, inside, rng)
    cavities = inside
    inside = inside[box]
    canvas.paint(box, inside & (np.abs(above) < rng.uniform(1.5, 3.0)), "muscle")
    middle = canvas.x[box] - np.float32(rng.uniform(-4, 8))
    slab = np.abs(middle) < rng.uniform(2.5, 5)
    lung = inside & (above > 0) & ~slab
    canvas.paint(box, lung & (middle > 0), "left lung")
    canvas.paint(box, lung & (middle < 0), "right lung")
    canvas.paint(box, inside & (above > 0) & slab, "fat")
    return cavities


def _paint_erectors(canvas: Canvas, frame: Frame, inside: np.ndarray, rng: np.random.Generator) -> None:
    """The two columns of muscle beside the lumbar spine; they push into the cavity and are taken from its
    mask."""
    z_mm = canvas.grid.z_mm
    box = canvas.heights(frame.crest_z - 60, -25)
    across = np.abs(canvas.x[box] - canvas.column(frame.spine_x(z_mm))[box[0]]) - np.float32(
        rng.uniform(26, 34)
    )
    half = (frame.back_y(z_mm) - frame.cord_y(z_mm)) / 2
    along = (canvas.y[box] - canvas.column(frame.cord_y(z_mm) + half + 4)[box[0]]) / canvas.column(half + 2)[
        box[0]
    ]
    reach = canvas.column(np.interp(z_mm, [-90, -25], [rng.uniform(40, 50), 24]))[box[0]]
    muscle = (np.clip(across, 0, None) / reach) ** 2 + np.abs(along) ** 3 < 1
    canvas.paint(box, muscle, "muscle", over=("fat",))
    inside[box] &= ~muscle


def paint_deep_muscles(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Psoas, quadratus lumborum, crura, iliacus, and the fat planes beside the spine's muscles."""
    crest, hip = frame.crest_z, frame.hip_z
    thick = rng.uniform(0.75, 1.25) * frame.size
    for side in (-1, 1):
        spots = [
            (-75, 22, 8, 9),
            (-120, 30, 5, 15),
            (crest + 20, 40, 2, 20),
            (crest - 40, 55, -8, 22),
            (hip + 10, 78, -38, 18),
        ]
        path = [
            (side * x + float(frame.spine_x(z)), float(frame.vertebra_y(z)) + y if z > crest - 50 else y, z)
            for z, x, y, _ in spots
        ]
        box, distance, _ = canvas.tube(
            path, [radius * thick for *_, radius in spots], grow_mm=3, flatten=1.05
        )
        canvas.paint(box, distance < 2, "fat", over=("muscle",))
        canvas.paint(box, distance < 0, "muscle")
        quadratus = [
            (side * 48, float(frame.cord_y(-95)) + 6, -95),
            (side * 66, float(frame.cord_y(crest)) + 2, crest),
        ]
        box, distance, _ = canvas.tube(quadratus, 9 * thick, flatten=1.8)
        canvas.paint(box, distance < 0, "muscle", over=("fat",))
        crus = [
            (side * 10, float(frame.vertebra_y(0)) - 26, 0),
            (side * 14, float(frame.vertebra_y(-60)) - 20, -60),
            (side * 16, float(frame.vertebra_y(-120)) - 20, -125),
        ]
        box, distance, _ = canvas.tube(crus, [4, 6, 4])
        canvas.paint(box, distance < 0, "muscle", over=("fat", "left lung", "right lung"))
        gap = [(side * 4, float(frame.cord_y(z)) + 42, z) for z in (crest - 30, -100, 0)]
        box, distance, _ = canvas.tube(gap, rng.uniform(2, 4))
        canvas.paint(box, distance < 0, "fat", over=("muscle",))
    _paint_gluteal_fat(canvas, frame, rng)


def _paint_gluteal_fat(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Fat planes between the muscles around the hips, and in the cleft between them."""
    hip = frame.hip_z
    for side in (-1, 1):
        for x, y, z in ((100, 45, hip + 30), (70, 55, hip - 20), (115, -30, hip), (60, -50, hip - 40)):
            radii = (rng.uniform(8, 20), rng.uniform(6, 14), rng.uniform(20, 45))
            box, value = canvas.ellipsoid((side * x, y, z), radii, (0, 0, side * rng.uniform(-40, 40)))
            canvas.paint(box, value < 1, "fat", over=("muscle",))
