"""What goes wrong in patients: effusion, consolidation, lung mass, liver lesions, ascites.

Consolidated and collapsed lung keeps its lung's label; pleural fluid and large masses belong to no organ;
lesions and cysts of the liver stay liver, renal cysts do not stay kidney.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Canvas
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.tissue import TISSUE_INDEX

LUNGS = ("left lung", "right lung")
LARGE_MASS_MM = 14.0
"""Radius from which a lung mass is not counted as lung."""


def paint_chest_pathology(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> list[str]:
    """Draw and paint; returns the names of what was painted."""
    found = []
    for lung in LUNGS:
        if rng.random() < 0.14:
            _paint_effusion(canvas, frame, lung, rng)
            found.append(f"effusion {lung}")
        if rng.random() < 0.12:
            _paint_consolidation(canvas, frame, lung, rng)
            found.append(f"consolidation {lung}")
        for _ in range(rng.poisson(0.25)):
            _paint_mass(canvas, frame, lung, rng)
            found.append(f"mass {lung}")
    return found


def _chest_box(canvas: Canvas, frame: Frame):
    return canvas.heights(-170, frame.apex_z)


def _paint_effusion(canvas: Canvas, frame: Frame, lung: str, rng: np.random.Generator) -> None:
    """Fluid behind (the patient lies on the back) with a strip of collapsed lung on top."""
    box = _chest_box(canvas, frame)
    level = float(frame.chest_contour(0.3 * frame.apex_z)[2]) - rng.uniform(8, 70)
    tilt = (
        canvas.y[box] - level + 0.18 * canvas.z[box] * rng.uniform(-0.3, 1) + 4 * canvas.noise(rng, 45.0, box)
    )
    label = TISSUE_INDEX[lung]
    this_lung = canvas.labels[box] == label
    canvas.paint(box, this_lung & (tilt > 0), "fluid")
    strip = (tilt > -rng.uniform(6, 28)) & (tilt <= 0)
    canvas.paint(box, strip, "collapsed lung", label=label, over=(lung,))


def _paint_consolidation(canvas: Canvas, frame: Frame, lung: str, rng: np.random.Generator) -> None:
    """Patchy dense lung low and behind, with air bronchograms left open."""
    side = 1 if lung == "left lung" else -1
    centre = (side * rng.uniform(50, 90), rng.uniform(-10, 60), rng.uniform(-20, 0.7 * frame.apex_z))
    radii = rng.uniform(18, 60, 3)
    box, value = canvas.ellipsoid(centre, radii, grow=1.3)
    patch = value + rng.uniform(0.1, 0.5) * canvas.noise(rng, 12.0, box) < 1
    canvas.paint(box, patch, "collapsed lung", label=TISSUE_INDEX[lung], over=(lung,))


def _paint_mass(canvas: Canvas, frame: Frame, lung: str, rng: np.random.Generator) -> None:
    """A nodule or a large mass, often touching the pleura."""
    side = 1 if lung == "left lung" else -1
    radius = float(np.clip(np.exp(rng.normal(2.3, 0.7)), 3, 55))
    height = rng.uniform(0.0, 0.85) * frame.apex_z
    width, front, back = (float(value) for value in frame.chest_contour(height))
    angle = rng.uniform(0.1, 0.9) * np.pi
    share = rng.uniform(0.5, 1.0)
    centre = (
        side * width * np.sin(angle) * share,
        (front + back) / 2 + (back - front) / 2 * np.cos(angle) * share,
        height,
    )
    box, value = canvas.ellipsoid(
        centre, radius * rng.uniform(0.8, 1.25, 3), (0, 0, rng.uniform(0, 90)), grow=1.2
    )
    shape = value + 0.15 * canvas.noise(rng, max(6.0, 0.6 * radius), box) < 1
    canvas.paint(
        box,
        shape,
        "mass",
        label=0 if radius > LARGE_MASS_MM else -1,
        over=(*LUNGS, "lung vessel", "collapsed lung"),
    )
    if radius > 25 and rng.random() < 0.3:
        canvas.paint(
            box, shape & (value < 0.3), "gas" if rng.random() < 0.4 else "fluid", label=0, over=("mass",)
        )


def paint_abdominal_pathology(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> list[str]:
    """Liver lesions and cysts, ascites; returns the names of what was painted."""
    found = []
    for _ in range(rng.poisson(0.6)):
        centre = (
            rng.uniform(-0.85, 0.1) * frame.chest_half_width,
            rng.uniform(-60, 30),
            -rng.uniform(15, 100),
        )
        box, value = canvas.ellipsoid(centre, rng.uniform(4, 28) * rng.uniform(0.8, 1.2, 3))
        tissue = "mass" if rng.random() < 0.65 else "fluid"
        shape = value + 0.12 * canvas.noise(rng, 12.0, box) < 1
        canvas.paint(box, shape, tissue, label=TISSUE_INDEX["liver"], over=("liver", "hepatic vessel"))
        found.append(f"liver {tissue}")
    if rng.random() < 0.06:
        box = canvas.heights(frame.hip_z, -5)
        depth = (np.abs(canvas.x[box]) / frame.waist_half_width) + 0.25 * canvas.noise(rng, 45.0, box)
        canvas.paint(box, (depth > rng.uniform(0.6, 0.8)) & (canvas.y[box] < 40), "fluid", over=("fat",))
        found.append("ascites")
    return found
