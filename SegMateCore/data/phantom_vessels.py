"""Blood vessels of the chest, and how any set of vessels is painted: rims of fat first, then all lumina."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_chest import LUNGS, Chest
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.tissue import TISSUE_INDEX

Points = np.ndarray | list
Radii = np.ndarray | list[float] | float


@dataclass(frozen=True)
class Vessel:
    """A tube waiting to be painted: points (N, 3) mm, radii, tissue, rim of fat around it."""

    points: np.ndarray
    radii: Radii
    tissue: str
    rim_mm: float = 2.0
    over: tuple[str, ...] | None = None


def vein(points: Points, radii: Radii, over: tuple[str, ...] | None = None) -> Vessel:
    """A vessel of venous blood along a list of points (mm)."""
    return Vessel(np.array(points), radii, "venous blood", over=over)


def artery(points: Points, radii: Radii, over: tuple[str, ...] | None = None) -> Vessel:
    """A vessel of arterial blood along a list of points (mm)."""
    return Vessel(np.array(points), radii, "arterial blood", over=over)


def great_vessels(frame: Frame, chest: Chest, rng: np.random.Generator) -> list[Vessel]:
    """Veins and arteries of the mediastinum and neck, in painting order (also the order of the draws)."""
    cava = rng.uniform(8, 11) * frame.size
    pulmonary = rng.uniform(10, 14) * frame.size
    return [
        *_upper_veins(frame, chest, cava),
        *_pulmonary_arteries(frame, chest, pulmonary),
        _azygos(frame, rng),
        *_arch_branches(frame, chest, rng),
        *_neck_and_pulmonary_veins(frame, chest, rng),
    ]


def _upper_veins(frame: Frame, chest: Chest, radius: float) -> list[Vessel]:
    """Superior vena cava (of this radius), right and left brachiocephalic vein."""
    carina, arch, top = frame.carina_z, chest.arch_z, frame.apex_z
    _, y, z = chest.heart
    cava = [(-34, y + 8, z + 18), (-36, y + 4, carina + 4), (-34, y - 4, arch + 12)]
    right = [(-34, y - 4, arch + 12), (-44, y + 6, top - 25), (-52, 0, top + 15)]
    left = [(-34, y - 6, arch + 8), (0, y - 12, arch + 16), (40, y - 2, top - 28), (56, 2, top + 10)]
    return [vein(cava, radius), vein(right, 0.75 * radius), vein(left, 0.7 * radius)]


def _pulmonary_arteries(frame: Frame, chest: Chest, radius: float) -> list[Vessel]:
    """Pulmonary trunk, right and left pulmonary artery; radius: where they part."""
    carina = frame.carina_z
    x, y, z = chest.heart
    root_y = float(frame.vertebra_y(carina)) - 50
    fork = (26, y + 12, carina - 4)
    trunk = [(x + 14, y - 20, z + 22), (24, y - 10, carina - 14), fork]
    right = [fork, (-4, root_y + 8, carina - 18), (-46, root_y + 14, carina - 24)]
    left = [fork, (44, root_y + 16, carina + 2), (58, root_y + 22, carina - 16)]
    return [
        vein(trunk, radius * 1.1),
        vein(right, [radius, 0.85 * radius, 0.6 * radius]),
        vein(left, [radius, 0.8 * radius, 0.6 * radius]),
    ]


def _azygos(frame: Frame, rng: np.random.Generator) -> Vessel:
    """Azygos vein, before the spine on the right."""
    carina = frame.carina_z
    points = [
        (-10, float(frame.vertebra_y(-60)) - 28, -60),
        (-9, float(frame.vertebra_y(40)) - 24, 40),
        (-10, float(frame.vertebra_y(carina)) - 24, carina + 6),
    ]
    return vein(points, rng.uniform(2.5, 4.5))


def _arch_branches(frame: Frame, chest: Chest, rng: np.random.Generator) -> list[Vessel]:
    """Subclavian and carotid arteries, from right to left."""
    arch, top = chest.arch_z, frame.apex_z
    arch_y = (chest.aorta[4, 1] + chest.aorta[3, 1]) / 2
    branches = []
    for x, far in ((-10, -70), (-10, -26), (8, 26), (18, 70)):
        points = [
            (x, arch_y, arch + 4),
            (0.4 * x + 0.4 * far, arch_y, (arch + top) / 2),
            (far, arch_y + 12, top + 14),
            (far * 1.15, 4, top + 70 if abs(far) < 50 else top + 12),
        ]
        branches.append(artery(points, rng.uniform(3.5, 6)))
    return branches


def _neck_and_pulmonary_veins(frame: Frame, chest: Chest, rng: np.random.Generator) -> list[Vessel]:
    """Right, then left: the jugular vein and the pulmonary vein (its blood is arterial)."""
    top = frame.apex_z
    _, y, z = chest.heart
    veins = []
    for side in (-1, 1):
        jugular = [(side * 34, y + 6, top + 5), (side * 36, 0, top + 90)]
        veins.append(vein(jugular, rng.uniform(4, 8)))
        pulmonary = [(side * 26, y + 34, z + 14), (side * 62, y + 46, z + rng.uniform(0, 22))]
        veins.append(artery(pulmonary, [8, 5]))
    return veins


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
