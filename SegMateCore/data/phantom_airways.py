"""Tubes and trees of the chest: trachea with bronchi, esophagus, lung vessels."""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_chest import LUNGS, Chest
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.tissue import TISSUE_INDEX


def paint_airways(canvas: Canvas, frame: Frame, chest: Chest, rng: np.random.Generator) -> None:
    """Trachea with wall, both main bronchi and lobar bronchi; the label ends a little below the carina."""
    main, lobar = _airway_courses(frame, chest, rng)
    wall_mm = rng.uniform(2.0, 3.0)
    main, lobar = (
        [canvas.tube(points, radii, grow_mm=3, flatten=1.08)[:2] for points, radii in courses]
        for courses in (main, lobar)
    )
    for shapes, thick in ((main, wall_mm), (lobar, 1.0)):
        for box, distance in shapes:
            canvas.paint(box, distance < thick, "soft tissue", over=(*LUNGS, "fat"))
    label_end = frame.carina_z - rng.uniform(15, 25)
    free = (*LUNGS, "soft tissue", "fat")
    for box, distance in lobar:
        canvas.paint(box, distance < 0, "gas", over=free)
    for box, distance in main:
        counted = canvas.z[box] > label_end
        canvas.paint(box, (distance < 0) & ~counted, "gas", over=(*free, "gas"))
        canvas.paint(box, (distance < 0) & counted, "trachea")


def _airway_courses(frame: Frame, chest: Chest, rng: np.random.Generator) -> tuple[list, list]:
    """(points, radii) of trachea and both main bronchi, and of the lobar bronchi (four a side)."""
    carina, radius = frame.carina_z, chest.trachea_radius
    fork = chest.trachea[-1]
    main, lobar = [(chest.trachea, radius)], []
    for side, far, fall in ((-1, rng.uniform(20, 27), 26), (1, rng.uniform(34, 44), 30)):
        end = np.array((fork[0] + side * far, fork[1] + 6, carina - fall))
        course = np.array([fork + (side * 2, 0, 4), fork + (side * 0.45 * far, 2, -12), end])
        main.append((course, radius * np.array([0.85, 0.78, 0.68])))
        for _ in range(4):
            aim = end + (side * rng.uniform(14, 30), rng.uniform(-24, 24), rng.uniform(-36, 22))
            tip = aim + (side * 12, rng.uniform(-14, 14), rng.uniform(-20, 8))
            lobar.append((np.array([end, aim, tip]), [0.5 * radius, 3.2, 2.0]))
    return main, lobar


def paint_esophagus(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    """Muscular tube, sometimes with air or content; wider at the hiatus."""
    radius = rng.uniform(6.0, 9.0)
    radii = radius * np.array([0.85, 0.85, 0.9, 1, 1, 1, 1.1, 1.2, 1.25, 1.3])
    flatten = rng.uniform(1.0, 1.5)
    box, distance, _ = canvas.tube(chest.esophagus, radii, flatten=flatten)
    keep = (
        "fat",
        "soft tissue",
        "muscle",
        "fluid",
        "venous blood",
        "arterial blood",
        "myocardium",
        "liver",
        *LUNGS,
    )
    canvas.paint(box, distance < 0, "esophagus", over=keep)
    if rng.random() < 0.6:
        spans = canvas.noise(rng, 45.0, box) > rng.uniform(0.2, 1.2)
        lumen = (distance < -rng.uniform(2.6, 4.5)) & spans
        tissue = "gas" if rng.random() < 0.8 else "bowel content"
        canvas.paint(box, lumen, tissue, label=TISSUE_INDEX["esophagus"], over=("esophagus",))


def paint_lung_vessels(canvas: Canvas, frame: Frame, chest: Chest, rng: np.random.Generator) -> None:
    """Branching trees from each hilum; voxels keep their lung's label."""
    fork = chest.trachea[-1]
    for side in (-1, 1):
        root = fork + (side * 34, 10, -22)
        stack = []
        for _ in range(rng.integers(8, 13)):
            aim = np.array([side * rng.uniform(0.3, 1.2), rng.uniform(-1, 1), rng.uniform(-1.5, 1.1)])
            stack.append((root, aim / np.linalg.norm(aim), rng.uniform(3.6, 6.0), 0))
        while stack:
            start, heading, radius, depth = stack.pop()
            length = radius * rng.uniform(4.5, 8.5)
            end = start + heading * length
            box, distance, _ = canvas.tube(np.array([start, end]), [radius, 0.85 * radius])
            canvas.paint(box, distance < 0, "lung vessel", label=-1, over=LUNGS)
            if radius < 1.3 or depth > 4:
                continue
            for share in (rng.uniform(0.68, 0.85), rng.uniform(0.55, 0.8)):
                turned = heading + rng.normal(0, 0.42, 3)
                stack.append((end, turned / np.linalg.norm(turned), radius * share, depth + 1))
