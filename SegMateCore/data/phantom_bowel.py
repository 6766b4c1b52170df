"""Stomach, duodenum, colon, small bowel, bladder and the small pelvis' organs.

Hollow organs are tubes with a wall, filled with content, gas (rising to the front in a patient on the
back), fluid or nothing; loops are random smooth walks, so that they look like bowel and not like noise.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_frame import Frame

FREE = ("fat",)


def _paint_hollow(
    canvas: Canvas, points, radii, rng: np.random.Generator, wall_mm: float, gas: float, fill: str
) -> None:
    """One hollow tube over fat. gas: 0..1, share of the lumen (from the front) that gas takes."""
    box, distance, axis_y = canvas.tube(np.asarray(points, float), radii, grow_mm=2)
    distance = distance + 1.2 * canvas.noise(rng, 16.0, box)
    free = canvas.is_one_of(box, FREE)
    canvas.paint(box, (distance < 0) & free, "soft tissue")
    lumen = (distance < -wall_mm) & free
    canvas.paint(box, lumen, fill)
    if gas > 0:
        radius = float(np.max(radii))
        level = axis_y + (2 * gas - 1) * radius + 0.15 * radius * canvas.noise(rng, 50.0, box)
        canvas.paint(box, lumen & (canvas.y[box] < level), "gas")
    if fill == "bowel content":
        crumbs = canvas.noise(rng, 7.0, box) > rng.uniform(1.2, 2.6)
        canvas.paint(box, lumen & crumbs, "gas" if rng.random() < 0.6 else "fat")


def paint_stomach(canvas: Canvas, frame: Frame, start, rng: np.random.Generator) -> None:
    """Stomach from the esophagus' end (start, x y z) to the pylorus, then the duodenum around the pancreas'
    head."""
    uniform, size = rng.uniform, frame.size
    full = uniform(0.5, 1.25) * size
    front = float(frame.front_y(-70))
    low = -uniform(85, 150)
    body = [
        (uniform(42, 58), uniform(12, 32), -uniform(22, 34)),
        (uniform(52, 68), 0.15 * front, -52),
        (uniform(42, 60), 0.5 * front, 0.55 * low - 30),
        (uniform(8, 25), 0.55 * front, low),
        (-28, 0.35 * front, -100),
    ]
    radii = full * np.array([30, 34, 31, 22, 11])
    fill = "bowel content" if rng.random() < 0.7 else "fluid"
    _paint_hollow(
        canvas, body, radii, rng, uniform(3, 6), uniform(0, 0.75) if rng.random() < 0.8 else 0, fill
    )
    cardia = [start, tuple((np.array(start) + body[0]) / 2), body[0]]
    box, distance, _ = canvas.tube(np.array(cardia, float), [8, 9, 10])
    canvas.paint(box, distance < 0, "soft tissue", over=FREE)
    back = float(frame.vertebra_y(-150)) - float(frame.body_radius(-150))
    duodenum = [
        body[-1],
        (-46, 0.15 * front, -98),
        (-50, back - 12, -125),
        (-44, back - 6, -175),
        (0, back - 26, -182),
        (34, back - 22, -150),
    ]
    fill = str(rng.choice(["bowel content", "fluid", "soft tissue"]))
    _paint_hollow(
        canvas, duodenum, uniform(8, 14) * size, rng, 2.2, uniform(0, 0.6) * (rng.random() < 0.5), fill
    )


def paint_colon(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Colon from the cecum to the rectum with haustra, as five stretches of differing content."""
    uniform = rng.uniform
    waist, crest = frame.waist_half_width, frame.crest_z
    front, droop = float(frame.front_y(-140)), uniform(125, 215)
    radius = uniform(15, 25) * frame.size
    out = 0.74 * waist
    stretches = [
        [
            (-0.6 * waist, -25, crest - 25),
            (-out, -5, crest + 30),
            (-out, 5, -150),
            (-0.66 * waist, -8, -uniform(115, 135)),
        ],
        [
            (-0.64 * waist, -12, -125),
            (-0.4 * waist, 0.7 * front, -droop),
            (0, 0.78 * front, -droop - 8),
            (0.4 * waist, 0.66 * front, -0.8 * droop),
            (0.68 * waist, 0, -uniform(62, 85)),
        ],
        [
            (0.7 * waist, 4, -75),
            (0.76 * waist, 14, -140),
            (0.74 * waist, 8, crest + 10),
            (0.6 * waist, -12, crest - 45),
        ],
        [
            (0.58 * waist, -16, crest - 50),
            (0.25 * waist, -25, crest - 82),
            (-0.1 * waist, -15, crest - 70),
            (8, 18, crest - 95),
        ],
        [(8, 20, crest - 95), (0, 34, frame.hip_z + 25), (0, 26, frame.hip_z - 25)],
    ]
    for stretch, share in zip(stretches, (1.2, 0.95, 0.8, 0.75, 0.9)):
        points = _haustra(np.array(stretch), rng)
        radii = radius * share * rng.uniform(0.72, 1.12, len(points))
        gas = uniform(0.2, 1.0) if rng.random() < 0.6 else 0.0
        fill = "bowel content" if rng.random() < 0.8 else "fluid"
        if rng.random() < 0.15:
            fill, gas, radii = "soft tissue", 0.0, 0.55 * radii
        _paint_hollow(canvas, points, radii, rng, uniform(1.5, 3.5), gas, fill)


def _haustra(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points about 30 mm apart along the course, jittered."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    where = np.linspace(0, along[-1], max(3, int(along[-1] / 30)))
    dense = np.stack([np.interp(where, along, points[:, axis]) for axis in range(3)], 1)
    dense[1:-1] += rng.normal(0, 6, dense[1:-1].shape)
    return dense


def paint_small_bowel(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Eight to thirty loops wandering through the middle of the abdomen, collapsed, filled or gassy."""
    uniform = rng.uniform
    low = np.array([-0.62 * frame.waist_half_width, 0.86 * float(frame.front_y(-170)), frame.hip_z + 25])
    high = np.array([0.62 * frame.waist_half_width, 8.0, -95.0])
    radius, loops = uniform(8.5, 14), int(uniform(16, 30) * (1 - 0.5 * frame.visceral_fat))
    common = str(rng.choice(["bowel content", "fluid", "soft tissue"]))
    for _ in range(loops):
        spot = rng.uniform(low, high)
        heading = rng.normal(0, 1, 3)
        points = [spot]
        for _ in range(rng.integers(7, 14)):
            heading = 0.55 * heading / np.linalg.norm(heading) + rng.normal(0, 0.55, 3)
            spot = spot + 22 * heading / np.linalg.norm(heading)
            outside = (spot < low) | (spot > high)
            heading[outside] *= -1
            spot = np.clip(spot, low, high)
            points.append(spot)
        fill = common if rng.random() < 0.7 else str(rng.choice(["bowel content", "fluid", "soft tissue"]))
        gas = uniform(0.2, 0.9) if rng.random() < 0.3 else 0.0
        _paint_hollow(
            canvas, np.array(points), radius * uniform(0.75, 1.25), rng, uniform(1.5, 3.0), gas, fill
        )


def paint_mesentery(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Thin vessels and strands in the abdominal fat."""
    low = np.array([-70.0, 0.7 * float(frame.front_y(-150)), frame.crest_z - 40])
    high = np.array([70.0, 0.0, -90.0])
    for _ in range(rng.integers(15, 40)):
        start = rng.uniform(low, high)
        points = [start, start + rng.normal(0, 14, 3), start + rng.normal(0, 28, 3)]
        box, distance, _ = canvas.tube(np.array(points), rng.uniform(1.3, 2.6))
        tissue = "venous blood" if rng.random() < 0.6 else "arterial blood"
        canvas.paint(box, distance < 0, tissue, over=FREE)


def paint_pelvis_organs(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Bladder (empty to very full), uterus or prostate."""
    hip, scale = frame.hip_z, rng.uniform(0.5, 1.45)
    radii = scale * np.array([rng.uniform(34, 46), rng.uniform(26, 36), rng.uniform(26, 40)])
    centre = np.array([rng.uniform(-6, 6), -20 + 0.15 * radii[1], hip - 2 + 0.8 * radii[2]])
    soft = (*FREE, "muscle", "soft tissue")
    if frame.female:
        box, value = canvas.ellipsoid(
            centre + (rng.uniform(-8, 8), radii[1] + 8, 12), (28, 20, 32), (rng.uniform(-50, 50), 0, 0)
        )
        canvas.paint(box, value + 0.1 * canvas.noise(rng, 20.0, box) < 1, "soft tissue", over=FREE)
    else:
        box, value = canvas.ellipsoid((0, 2, hip - 20), (26, 19, 20))
        canvas.paint(box, value < 1, "soft tissue", over=FREE)
    box, value = canvas.ellipsoid(centre, radii, (rng.uniform(-15, 15), 0, 0))
    canvas.paint(box, value < 1, "soft tissue", over=soft)
    canvas.paint(box, value < (1 - rng.uniform(2, 5) / radii.min()) ** 2, "fluid", over=soft)
