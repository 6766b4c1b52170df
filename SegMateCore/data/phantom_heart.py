"""The heart with its chambers, and the fat that separates the lungs.

The lungs are already there as cavities; every mediastinal structure carries a rim of fat into them, so that
the lungs end where a real lung does: at the aorta, the heart and the spine.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_chest import LUNGS, Chest
from SegMateCore.data.phantom_frame import Frame


def paint_mediastinal_fat(canvas: Canvas, frame: Frame, chest: Chest, rng: np.random.Generator) -> None:
    """Fat that separates the lungs: around spine, tubes and heart, and the upper mediastinum; thymus
    remnants."""
    z_mm = canvas.grid.z_mm
    box = canvas.heights(-170, frame.apex_z + 5)
    spine = np.sqrt(
        (canvas.x[box] - canvas.column(frame.spine_x(z_mm))[box[0]]) ** 2 / 1.3
        + (canvas.y[box] - canvas.column(frame.vertebra_y(z_mm))[box[0]]) ** 2
    )
    canvas.paint(
        box, spine < canvas.column(frame.body_radius(z_mm) + rng.uniform(2, 4))[box[0]], "fat", over=LUNGS
    )
    canal = np.abs(canvas.x[box]) + 0.9 * np.abs(
        canvas.y[box] - canvas.column(frame.cord_y(z_mm) + 8)[box[0]]
    )
    canvas.paint(box, canal < 34, "muscle", over=LUNGS)
    arch, carina = chest.arch_z, frame.carina_z
    for centre, radii in (
        (
            (0, (chest.heart[1] + chest.trachea[3, 1]) / 2, arch),
            (rng.uniform(28, 38), rng.uniform(30, 40), rng.uniform(34, 44)),
        ),
        ((0, chest.trachea[3, 1] + 4, frame.apex_z - 5), (rng.uniform(24, 30), 30, 45)),
        ((2, chest.trachea[4, 1] + 8, carina - 22), (rng.uniform(16, 24), 24, 36)),
        ((0, chest.heart[1] - 26, carina + 8), (rng.uniform(14, 26), 20, 40)),
        ((6, float(frame.vertebra_y(0)) - 32, -5), (rng.uniform(14, 20), 20, 40)),
    ):
        part, value = canvas.ellipsoid(centre, radii)
        canvas.paint(part, value < 1, "fat", over=LUNGS)
    for points, radii, rim in (
        (chest.aorta, chest.aorta_radii, rng.uniform(1.5, 3.0)),
        (chest.trachea, chest.trachea_radius, 2.5),
        (chest.esophagus, 8.0, rng.uniform(1.5, 3.5)),
    ):
        part, distance, _ = canvas.tube(points, radii, grow_mm=4)
        canvas.paint(part, distance < rim, "fat", over=LUNGS)
    part, value = canvas.ellipsoid(chest.heart, chest.heart_radii * 1.05, (0, rng.uniform(10, 28), 0))
    canvas.paint(part, value < 1, "fat")


def paint_heart(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    """Myocardium around four chambers inside the pericardial fat, sometimes a pericardial effusion."""
    centre, size = chest.heart, chest.heart_radii / np.array([60.0, 48.0, 46.0])
    # Offset from the heart's centre, radii, blood, wall (mm), for a heart with half axes of 60, 48 and 46 mm:
    # right atrium, right ventricle, left atrium, left ventricle, outflow tract.
    chambers = (
        ((-34, 4, 2), (18, 24, 28), "venous blood", 2.5),
        ((4, -22, -6), (33, 15, 31), "venous blood", 4.0),
        ((0, 27, 12), (31, 15, 23), "arterial blood", 2.5),
        ((28, 2, -8), (20, 19, 29), "arterial blood", rng.uniform(8.5, 13)),
        ((-2, -2, 18), (13, 13, 14), "arterial blood", 2.5),
    )
    turn = (rng.uniform(-12, 5), rng.uniform(12, 30), rng.uniform(20, 40))
    turns = ((0, 0, 0), (0, turn[1], turn[2] * 0.6), (0, 0, 5), turn, (0, 0, 0))
    shapes = []
    for (offset, radii, blood, wall), turned in zip(chambers, turns):
        wall_radii = np.array(radii) * size + wall
        box, value = canvas.ellipsoid(centre + np.array(offset) * size, wall_radii, turned)
        canvas.paint(box, value < 1, "myocardium")
        shapes.append(
            (canvas.ellipsoid(centre + np.array(offset) * size, np.array(radii) * size, turned), blood)
        )
    for (box, value), blood in shapes:
        canvas.paint(box, value < 1, blood)
    box, value = canvas.ellipsoid(
        centre + np.array((14, -8, -8)) * size, np.array((4.0, 20, 28)) * size, turn
    )
    canvas.paint(box, value < 1, "myocardium", over=("venous blood", "arterial blood"))
    if rng.random() < 0.07:
        box, value = canvas.ellipsoid(chest.heart, chest.heart_radii * 1.12, (0, 20, 0))
        canvas.paint(box, value < 1, "fluid", over=("fat", *LUNGS))
