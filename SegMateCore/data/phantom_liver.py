"""Liver with its vessels and fissure, and the gall-bladder."""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.phantom_landmarks import FREE, Abdomen
from SegMateCore.data.phantom_muscles import Diaphragm


def paint_liver(
    canvas: Canvas, frame: Frame, abdomen: Abdomen, diaphragm: Diaphragm, rng: np.random.Generator
) -> None:
    """Liver under the diaphragm: a rounded intersection of half-spaces, with veins, portal tree and
    fissure."""
    half = frame.chest_half_width
    low, tip = abdomen.liver_low, abdomen.liver_tip
    box = canvas.box((-half - 20, -1.7 * frame.depth, low - 30), (tip + 20, frame.depth, 20))
    x, y, z = canvas.x[box], canvas.y[box], canvas.z[box]
    z_mm = canvas.grid.z_mm[box[0]]
    width, front, back = (canvas.column(curve) for curve in frame.chest_contour(z_mm))
    middle, depth = (front + back) / 2, (back - front) / 2
    wall = (1 - np.sqrt((x / width) ** 2 + ((y - middle) / depth) ** 2)) * np.minimum(width, depth) - 4
    across = np.clip((x + half) / (half + tip), 0, 1)
    bend = rng.uniform(0.65, 1.2)
    floor = low + (rng.uniform(-100, -62) - low) * across**bend + 0.30 * (y - middle)
    spine_front = canvas.column(frame.vertebra_y(z_mm) - frame.body_radius(z_mm))
    rear = (
        spine_front
        - 2
        + 84 * np.clip((-x - 22) / 50, 0, 1)
        - abdomen.liver_back * np.clip((x + 20) / 60, 0, 1.6)
    )
    beside = np.clip((x + 0.92 * half) / (0.25 * half), 0, 1) * np.clip((-z - 52) / 40, 0, 1)
    rear = rear - beside * np.clip(rear - (spine_front + rng.uniform(-8, 12)), 0, None)
    limits = (
        diaphragm.height(x, y) - 3.5 - z,
        wall,
        0.85 * (z - floor),
        0.9 * (rear - y),
        tip - x - 0.25 * np.abs(z + 45),
    )
    rounding = rng.uniform(4, 7)
    total = sum(np.exp(np.clip(-limit / np.float32(rounding), -30, 30)) for limit in limits)
    depth_mm = -np.float32(rounding) * np.log(total) + 1.8 * canvas.noise(rng, 30.0, box)
    inside = depth_mm > -1
    canvas.paint(box, inside, "liver", over=(*FREE, "muscle") if rng.random() < 0.3 else FREE)
    fissure = (
        (np.abs(x + 8 - 0.2 * y + 3 * canvas.noise(rng, 25.0, box)) < rng.uniform(0.5, 2.5))
        & (y < middle - 5)
        & (z < -rng.uniform(35, 65))
    )
    canvas.paint(box, fissure, "fat", over=("liver",))
    _paint_liver_vessels(canvas, frame, abdomen, rng)


def _paint_liver_vessels(canvas: Canvas, frame: Frame, abdomen: Abdomen, rng: np.random.Generator) -> None:
    half = frame.chest_half_width
    cava = np.array([-24.0, float(frame.vertebra_y(-12)) - 26, -14])
    hilum = np.array([-30.0, float(frame.vertebra_y(-70)) - 45, -72])
    trees = []
    for aim in ((-0.62 * half, 15, -45), (-0.35 * half, -45, -45), (0.1 * half, -45, -40)):
        trees.append((cava, np.array(aim, float), rng.uniform(4, 6.5)))
    for aim in ((-0.7 * half, 5, -90), (-0.6 * half, -30, -60), (-0.05 * half, -45, -60)):
        trees.append((hilum, np.array(aim, float), rng.uniform(4, 6)))
    stack = [(start, aim - start, radius, 0) for start, aim, radius in trees]
    while stack:
        start, course, radius, depth = stack.pop()
        course = course * rng.uniform(0.8, 1.1)
        end = start + course
        bend = (start + end) / 2 + rng.normal(0, 3, 3)
        box, distance, _ = canvas.tube(np.array([start, bend, end]), [radius, 0.9 * radius, 0.75 * radius])
        canvas.paint(box, distance < 0, "hepatic vessel", over=("liver",))
        if depth < 3 and radius > 1.4:
            length = np.linalg.norm(course)
            for _ in range(2):
                turned = course / length + rng.normal(0, 0.55, 3)
                stack.append(
                    (
                        end,
                        turned / np.linalg.norm(turned) * length * rng.uniform(0.5, 0.75),
                        radius * 0.68,
                        depth + 1,
                    )
                )
    if rng.random() < 0.9:
        trunk = [
            hilum,
            (hilum[0] + 12, hilum[1] + 2, -95),
            (-6, hilum[1] + 14, -118),
            (2, hilum[1] + 6, -200),
        ]
        box, distance, _ = canvas.tube(np.array(trunk), rng.uniform(5, 7.5))
        canvas.paint(box, distance < 0, "venous blood", over=FREE)


def paint_gallbladder(canvas: Canvas, frame: Frame, abdomen: Abdomen, rng: np.random.Generator) -> None:
    """Fluid-filled pear at the liver's lower face (nine in ten), of many sizes, sometimes with stones."""
    if rng.random() < 0.1:
        return
    scale = rng.uniform(0.6, 1.35)
    bottom = abdomen.liver_low * rng.uniform(0.6, 0.95)
    front = 0.62 * float(frame.front_y(-100))
    path = [
        (-34, -8, -78),
        (-44, front * 0.55, 0.6 * bottom - 25),
        (-52 + rng.uniform(-18, 12), front, bottom),
    ]
    box, distance, _ = canvas.tube(np.array(path), scale * np.array([4.0, 12, 18]))
    canvas.paint(box, distance < 0, "soft tissue", over=(*FREE, "liver", "hepatic vessel"))
    canvas.paint(box, distance < -rng.uniform(0.8, 2.0), "fluid", over=("soft tissue",))
    if rng.random() < 0.12:
        for _ in range(rng.integers(1, 5)):
            spot = np.array(path[-1]) + rng.normal(0, 5, 3) + (0, 5, 0)
            part, value = canvas.ellipsoid(spot, (rng.uniform(2, 6),) * 3)
            canvas.paint(part, value < 1, "spongy bone", over=("fluid",))
