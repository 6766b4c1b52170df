"""Where the solid organs of the abdomen lie: kidneys, spleen and the liver's measures, drawn before
painting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data.phantom_frame import Frame

FREE = ("fat",)


@dataclass(frozen=True)
class Kidney:
    """Side (+1 left, -1 right), centre, half axes and turn (degrees)."""

    side: int
    centre: np.ndarray
    radii: np.ndarray
    turn_deg: tuple[float, float, float]

    @classmethod
    def draw(cls, side: int, frame: Frame, rng: np.random.Generator) -> Kidney:
        uniform, size = rng.uniform, frame.size
        z = -uniform(105, 148) + (uniform(0, 22) if side > 0 else -uniform(0, 14))
        out = float(frame.body_radius(z)) + uniform(32, 44) * size + 8 * frame.visceral_fat
        y = float(frame.vertebra_y(z)) + uniform(4, 20)
        small = uniform(0.7, 0.88) if rng.random() < 0.07 else uniform(0.97, 1.18)
        radii = small * size * np.array([uniform(24, 30), uniform(22, 28), uniform(47, 58)])
        return cls(
            side,
            np.array([side * out, y, z]),
            radii,
            (uniform(-14, 4), side * uniform(6, 20), side * uniform(-35, -5)),
        )


@dataclass(frozen=True)
class Abdomen:
    """Landmarks drawn before painting: liver measures, kidneys (absent ones left out), stomach's and
    spleen's place."""

    liver_low: float
    liver_tip: float
    liver_back: float
    kidneys: tuple[Kidney, ...]
    spleen: np.ndarray
    spleen_radii: np.ndarray

    @classmethod
    def draw(cls, frame: Frame, rng: np.random.Generator) -> Abdomen:
        uniform, size = rng.uniform, frame.size
        kidneys = tuple(Kidney.draw(side, frame, rng) for side in (1, -1))
        missing = rng.random()
        kidneys = tuple(
            kidney for kidney, limit in zip(kidneys, (0.03, 0.06)) if not limit - 0.03 < missing < limit
        )
        scale = np.exp(rng.normal(0, 0.22)) * size
        radii = scale * np.array([uniform(20, 27), uniform(36, 46), uniform(42, 60)])
        place = np.array([frame.chest_half_width - radii[0] * 0.95 - 8, uniform(18, 38), -uniform(38, 72)])
        return cls(-uniform(132, 192) * size, uniform(30, 100), uniform(8, 26), kidneys, place, radii)
