"""Blood vessels of the chest, and how any set of vessels is painted: rims of fat first, then all lumina."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_chest import LUNGS, Chest
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.tissue import TISSUE_INDEX


@dataclass(frozen=True)
class Vessel:
    """A tube waiting to be painted: points (N, 3) mm, radii, tissue, rim of fat around it."""

    points: np.ndarray
    radii: np.ndarray | float
    tissue: str
    rim_mm: float = 2.0
    over: tuple[str, ...] | None = None


def great_vessels(frame: Frame, chest: Chest, rng: np.random.Generator) -> list[Vessel]:
    """Veins and arteries of the mediastinum and neck, in painting order."""
    uniform, carina, arch, top = rng.uniform, frame.carina_z, chest.arch_z, frame.apex_z
    heart = chest.heart
    cava = uniform(8, 11) * frame.size
    pulmonary = uniform(10, 14) * frame.size
    anterior = heart[1]
    root_y = float(frame.vertebra_y(carina)) - 50
    vessels = [
        Vessel(
            np.array(
                [
                    (-34, anterior + 8, heart[2] + 18),
                    (-36, anterior + 4, carina + 4),
                    (-34, anterior - 4, arch + 12),
                ]
            ),
            cava,
            "venous blood",
        ),
        Vessel(
            np.array([(-34, anterior - 4, arch + 12), (-44, anterior + 6, top - 25), (-52, 0, top + 15)]),
            0.75 * cava,
            "venous blood",
        ),
        Vessel(
            np.array(
                [
                    (-34, anterior - 6, arch + 8),
                    (0, anterior - 12, arch + 16),
                    (40, anterior - 2, top - 28),
                    (56, 2, top + 10),
                ]
            ),
            0.7 * cava,
            "venous blood",
        ),
        Vessel(
            np.array(
                [
                    (heart[0] + 14, anterior - 20, heart[2] + 22),
                    (24, anterior - 10, carina - 14),
                    (26, anterior + 12, carina - 4),
                ]
            ),
            pulmonary * 1.1,
            "venous blood",
        ),
        Vessel(
            np.array(
                [
                    (26, anterior + 12, carina - 4),
                    (-4, root_y + 8, carina - 18),
                    (-46, root_y + 14, carina - 24),
                ]
            ),
            [pulmonary, 0.85 * pulmonary, 0.6 * pulmonary],
            "venous blood",
        ),
        Vessel(
            np.array(
                [
                    (26, anterior + 12, carina - 4),
                    (44, root_y + 16, carina + 2),
                    (58, root_y + 22, carina - 16),
                ]
            ),
            [pulmonary, 0.8 * pulmonary, 0.6 * pulmonary],
            "venous blood",
        ),
        Vessel(
            np.array(
                [
                    (-10, float(frame.vertebra_y(-60)) - 28, -60),
                    (-9, float(frame.vertebra_y(40)) - 24, 40),
                    (-10, float(frame.vertebra_y(carina)) - 24, carina + 6),
                ]
            ),
            uniform(2.5, 4.5),
            "venous blood",
        ),
    ]
    arch_y = (chest.aorta[4, 1] + chest.aorta[3, 1]) / 2
    for x, far in ((-10, -70), (-10, -26), (8, 26), (18, 70)):
        points = np.array(
            [
                (x, arch_y, arch + 4),
                (0.4 * x + 0.4 * far, arch_y, (arch + top) / 2),
                (far, arch_y + 12, top + 14),
                (far * 1.15, 4, top + 70 if abs(far) < 50 else top + 12),
            ]
        )
        vessels.append(Vessel(points, uniform(3.5, 6), "arterial blood"))
    for side in (-1, 1):
        vessels.append(
            Vessel(
                np.array([(side * 34, anterior + 6, top + 5), (side * 36, 0, top + 90)]),
                uniform(4, 8),
                "venous blood",
            )
        )
        vessels.append(
            Vessel(
                np.array(
                    [
                        (side * 26, heart[1] + 34, heart[2] + 14),
                        (side * 62, heart[1] + 46, heart[2] + uniform(0, 22)),
                    ]
                ),
                [8, 5],
                "arterial blood",
            )
        )
    return vessels


def paint_vessels(canvas: Canvas, vessels: list[Vessel]) -> None:
    """All rims first (fat, into the lungs), then all lumina, so that no rim cuts a neighbour."""
    shapes = []
    for vessel in vessels:
        box, distance, _ = canvas.tube(vessel.points, vessel.radii, grow_mm=vessel.rim_mm)
        canvas.paint(box, distance < vessel.rim_mm, "fat", over=LUNGS)
        shapes.append((box, distance < 0))
    for vessel, (box, mask) in zip(vessels, shapes):
        canvas.paint(box, mask, vessel.tissue, over=vessel.over)


def paint_aorta(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    """Lumen, wall plaques of lime, and thrombus where it is wide (all labelled aorta)."""
    box, distance, _ = canvas.tube(chest.aorta, chest.aorta_radii)
    label = TISSUE_INDEX["aorta"]
    inside = distance < 0
    canvas.paint(box, inside, "aorta")
    if rng.random() < 0.45:
        plaque = canvas.noise(rng, 9.0, box) > rng.uniform(1.3, 2.4)
        canvas.paint(box, inside & (distance > -2.5) & plaque, "cortical bone", label=label)
    if chest.aorta_radii[-2] > 1.15 * chest.aorta_radii[-4] and rng.random() < 0.7:
        low = inside & (distance > -rng.uniform(4, 9)) & (canvas.z[box] < -110)
        canvas.paint(box, low & (canvas.noise(rng, 25.0, box) > -0.6), "soft tissue", label=label)
