"""Solid organs of the abdomen but the liver: spleen, kidneys, pancreas, adrenals, great vessels.

Organs are painted into the fat of the cavity; sizes and shapes vary widely, most of all where a network is
easily wrong (spleen tips of every size, cysts).
"""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_chest import Chest
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.phantom_landmarks import FREE, Abdomen, Kidney
from SegMateCore.data.phantom_muscles import Diaphragm
from SegMateCore.data.phantom_vessels import Vessel, artery, vein
from SegMateCore.data.tissue import TISSUE_INDEX


def paint_spleen(
    canvas: Canvas, frame: Frame, abdomen: Abdomen, diaphragm: Diaphragm, rng: np.random.Generator
) -> None:
    """Crescent under the left dome, from small to huge; sometimes an accessory spleen or none."""
    if rng.random() < 0.04:
        return
    turn = (rng.uniform(-35, -5), rng.uniform(-15, 10), rng.uniform(-15, 25))
    box, value = canvas.ellipsoid(abdomen.spleen, abdomen.spleen_radii, turn, grow=1.1)
    hollow_centre = abdomen.spleen - (abdomen.spleen_radii[0] * 1.25, abdomen.spleen_radii[1] * 0.7, 0)
    hollow = sum(
        ((array[box] - middle) / radius) ** 2
        for array, middle, radius in zip(
            (canvas.x, canvas.y, canvas.z), hollow_centre, abdomen.spleen_radii * (0.95, 0.85, 1.1)
        )
    )
    below = canvas.z[box] < diaphragm.height(canvas.x[box], canvas.y[box]) - 3
    inside = (value + 0.07 * canvas.noise(rng, 28.0, box) < 1) & (hollow > 1) & below
    canvas.paint(box, inside, "spleen", over=FREE)
    if rng.random() < 0.1:
        spot = abdomen.spleen + rng.normal(0, 1, 3) * (12, 18, 25) - (25, 15, 0)
        part, value = canvas.ellipsoid(spot, (rng.uniform(4, 10),) * 3)
        canvas.paint(part, value < 1, "spleen", over=FREE)


def paint_kidney(canvas: Canvas, kidney: Kidney, rng: np.random.Generator) -> None:
    """Bean with cortex, pyramids, sinus fat and pelvis, its fat capsule, sometimes cysts or a wide pelvis."""
    name = "left kidney" if kidney.side > 0 else "right kidney"
    label = TISSUE_INDEX[name]
    capsule = rng.uniform(1.12, 1.4)
    soft = ("fat", "liver", "spleen", "hepatic vessel")
    box, value = canvas.ellipsoid(kidney.centre, kidney.radii, kidney.turn_deg, grow=1.25)
    canvas.paint(box, value < capsule, "fat", over=soft)
    wobble = value + 0.06 * canvas.noise(rng, 24.0, box)
    canvas.paint(box, wobble < 1, name, over=(*soft, "muscle"))
    mine = canvas.is_one_of(box, (name,))
    pyramids = (wobble < rng.uniform(0.58, 0.72)) & (canvas.noise(rng, 13.0, box) > -0.5)
    canvas.paint(box, pyramids & mine, "renal medulla", label=label)
    inward = kidney.centre - (kidney.side * kidney.radii[0] * 0.72, 0.25 * kidney.radii[1], 0)
    wide = rng.uniform(1.3, 1.9) if rng.random() < 0.08 else 1.0
    sinus_radii = kidney.radii * np.array(
        [rng.uniform(0.62, 0.78), rng.uniform(0.38, 0.5), rng.uniform(0.42, 0.55)]
    )
    inside = (name, "renal medulla")
    part, value = canvas.ellipsoid(inward, sinus_radii, kidney.turn_deg)
    canvas.paint(part, value < 1, "fat", over=inside)
    share = rng.uniform(0.15, 0.45) * wide**2
    canvas.paint(
        part, value + 0.2 * canvas.noise(rng, 10.0, part) < share, "renal pelvis", over=("fat", *inside)
    )
    ureter = [inward, inward - (kidney.side * 16, 2, 30), inward - (kidney.side * 26, -4, 110)]
    part, distance, _ = canvas.tube(np.array(ureter), [4.5 * wide, 2.5, 2.0])
    canvas.paint(part, distance < 0, "renal pelvis", over=FREE)
    for _ in range(rng.poisson(0.35)):
        spot = kidney.centre + kidney.radii * rng.normal(0, 0.6, 3) * (kidney.side, 1, 1)
        part, value = canvas.ellipsoid(spot, rng.uniform(4, 22) * np.array([1, 1, 1]))
        canvas.paint(part, value < 1, "fluid", over=(*inside, "fat", "renal pelvis"))


def paint_pancreas(canvas: Canvas, frame: Frame, abdomen: Abdomen, rng: np.random.Generator) -> None:
    """Lobulated pancreas from the duodenum to the spleen, and both adrenals."""
    front = float(frame.vertebra_y(-100)) - float(frame.body_radius(-100)) - 30
    tail = abdomen.spleen + (-30, -22, -8)
    path = [(-38, front + 4, -140), (-26, front - 2, -118), (8, front - 14, -100), (42, front - 2, -88), tail]
    box, distance, _ = canvas.tube(
        np.array(path), rng.uniform(0.75, 1.1) * np.array([13.0, 12, 9, 9, 8]), grow_mm=3
    )
    lobules = distance + rng.uniform(0.5, 3) * canvas.noise(rng, 9.0, box)
    canvas.paint(box, lobules < 0, "soft tissue", over=FREE)
    for side in (-1, 1):
        top = np.array([side * 34.0, float(frame.vertebra_y(-60)) - 8, -60 - 8 * side])
        for lean in (-10, 8):
            part, distance, _ = canvas.tube(
                np.array([top, top + (side * lean, 10, -18)]), rng.uniform(2, 3.5)
            )
            canvas.paint(part, distance < 0, "soft tissue", over=FREE)


def abdominal_vessels(frame: Frame, chest: Chest, abdomen: Abdomen, rng: np.random.Generator) -> list[Vessel]:
    """Vena cava, iliac, renal, mesenteric and splenic vessels, with nodes of lymph beside them.

    In painting order, which is also the order of the draws.
    """
    return [
        _vena_cava(frame, chest, rng),
        *_iliac_vessels(frame, chest),
        *_renal_vessels(chest, abdomen, rng),
        *_gut_arteries(chest, abdomen),
        *_lymph_nodes(frame, rng),
    ]


def _beside_spine(frame: Frame, z: float, x: float, ahead: float) -> tuple[float, float, float]:
    """The point at height z, x mm left of the middle of the spine and ahead mm before its bodies."""
    y = float(frame.vertebra_y(z)) - float(frame.body_radius(z)) * 0.8 - ahead
    return x + float(frame.spine_x(z)), y, z


def _aorta_y(chest: Chest, z: float) -> float:
    """Where the descending aorta runs at height z."""
    return np.interp(-z, -chest.aorta[6:, 2], chest.aorta[6:, 1])


def _vena_cava(frame: Frame, chest: Chest, rng: np.random.Generator) -> Vessel:
    """Inferior vena cava, from the fork of the aorta up into the heart."""
    radius = rng.uniform(8.5, 13) * frame.size
    low = chest.aorta[-1][2] - 5
    steps = ((low, -16, 8), (-160, -22, 8), (-100, -24, 12), (-50, -26, 22), (-10, -26, 28))
    course = [_beside_spine(frame, *step) for step in steps]
    course.append((-26, 0.5 * (chest.heart[1] + course[-1][1]), chest.heart[2] - 18))
    over = ("fat", "liver", "hepatic vessel", "muscle", "left lung", "right lung")
    return vein(course, radius, over)


def _iliac_vessels(frame: Frame, chest: Chest) -> list[Vessel]:
    """Right, then left: the iliac artery and vein, from the fork of the aorta to the hip."""
    end = chest.aorta[-1]
    loose = ("fat", "muscle", "soft tissue")
    vessels = []
    for side in (-1, 1):
        out = [
            end + (0, 0, 2),
            (side * 34, end[1] + 4, end[2] - 50),
            (side * 62, -5, end[2] - 95),
            (side * 78, -52, frame.hip_z),
        ]
        shift = [(-12, 4, -4), (side * 2, 12, 0), (side * -8, 12, 0), (side * -14, 4, 0)]
        vessels.append(artery(out, [7, 6, 5, 4.5], loose))
        vessels.append(vein(np.array(out) + shift, [9, 7, 6, 6], loose))
    return vessels


def _renal_vessels(chest: Chest, abdomen: Abdomen, rng: np.random.Generator) -> list[Vessel]:
    """Artery and vein of each kidney."""
    vessels = []
    for kidney in abdomen.kidneys:
        side = kidney.side
        hilum = kidney.centre - (side * kidney.radii[0] * 0.7, 6, 0)
        z = hilum[2] + 12
        y = _aorta_y(chest, z)
        vessels.append(artery([(8, y, z), (side * 30, y + 10, z - 6), hilum], 2.8, FREE))
        course = [(-22, y - 2, z + 2), (side * 24, y - 4, z), hilum - (0, 5, 0)]
        vessels.append(vein(course, rng.uniform(3.5, 5.5), FREE))
    return vessels


def _gut_arteries(chest: Chest, abdomen: Abdomen) -> list[Vessel]:
    """Superior mesenteric artery and splenic artery."""
    y = _aorta_y(chest, -90)
    mesenteric = [(6, y - 6, -88), (5, y - 24, -110), (2, y - 34, -200)]
    splenic = [(6, y - 6, -72), (2, y - 22, -70), (30, y - 14, -70), abdomen.spleen - (24, 16, 0)]
    return [artery(mesenteric, 3.5, FREE), artery(splenic, [4, 4, 3.2, 3], FREE)]


def _lymph_nodes(frame: Frame, rng: np.random.Generator) -> list[Vessel]:
    """From none to eleven short pieces of soft tissue before the spine."""
    nodes = []
    for _ in range(rng.integers(0, 12)):
        z, x, ahead = -rng.uniform(70, 220), rng.uniform(-45, 45), rng.uniform(4, 30)
        spot = np.array(_beside_spine(frame, z, x, ahead))
        points = np.array([spot, spot + rng.normal(0, 4, 3)])
        nodes.append(Vessel(points, rng.uniform(2, 6), "soft tissue", over=FREE))
    return nodes
