"""Where the organs of the chest lie: heart, arch, aorta, trachea and esophagus of one patient, drawn before
painting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data.phantom_frame import Frame

LUNGS = ("left lung", "right lung")


@dataclass(frozen=True)
class Chest:
    """Landmarks of one mediastinum: heart's centre and half sizes, arch height, and the three long tubes."""

    heart: np.ndarray
    heart_radii: np.ndarray
    arch_z: float
    aorta: np.ndarray
    aorta_radii: np.ndarray
    trachea: np.ndarray
    trachea_radius: float
    esophagus: np.ndarray

    @classmethod
    def draw(cls, frame: Frame, rng: np.random.Generator) -> Chest:
        uniform, size, carina = rng.uniform, frame.size, frame.carina_z
        enlarged = uniform(1.1, 1.3) if rng.random() < 0.15 else uniform(0.88, 1.08)
        low = -uniform(14, 26)
        heart = np.array(
            [
                uniform(10, 26),
                float(frame.front_y(20)) + 17 + uniform(50, 60) * size * enlarged,
                (carina - 12 + low) / 2,
            ]
        )
        radii = np.array([uniform(56, 66) * size, uniform(44, 52) * size, (carina - 12 - low) / 2]) * [
            enlarged,
            enlarged,
            1,
        ]
        radii[2] = min(max(radii[2], 38), 58)
        trachea_radius = uniform(6.8, 9.5) * (1.0 if frame.female else 1.12) * size**0.5
        arch_z = carina + uniform(22, 40)
        trachea = _draw_trachea(frame, rng)
        aorta, aorta_radii = _draw_aorta(frame, rng, heart, arch_z, beside_x=trachea[3, 0] + trachea_radius)
        return cls(
            heart,
            radii,
            arch_z,
            aorta,
            aorta_radii,
            trachea,
            trachea_radius,
            _draw_esophagus(frame, rng, trachea),
        )


def _draw_trachea(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    top, carina = frame.apex_z, frame.carina_z
    lean = rng.uniform(-10, 4)
    heights = [top + 90, top + 20, top - 25, (top + carina) / 2, carina + 4]
    before_spine = [32, 34, 34, 33, rng.uniform(34, 46)]
    return np.array(
        [
            (lean * (i / 4) + float(frame.spine_x(z)) * 0.6, float(frame.vertebra_y(z)) - ahead - 6, z)
            for i, (z, ahead) in enumerate(zip(heights, before_spine))
        ]
    )


def _draw_aorta(
    frame: Frame, rng: np.random.Generator, heart, arch_z: float, beside_x: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points and radii from the root over the arch to the bifurcation. beside_x: left edge of the trachea."""
    uniform, carina = rng.uniform, frame.carina_z
    radius = uniform(9.5, 13.5) * frame.size
    if rng.random() < 0.15:
        radius *= uniform(1.1, 1.35)
    left, end = uniform(16, 26), frame.crest_z + uniform(-18, 12)
    tortuous = uniform(0, 9) if rng.random() < 0.3 else uniform(0, 3)

    def descending(z: float) -> tuple[float, float, float]:
        share = np.clip((z - end) / (carina - end), 0, 1)
        x = float(frame.spine_x(z)) + 3 + left * share + tortuous * np.sin(z / 38)
        return (
            x,
            float(frame.vertebra_y(z)) - float(frame.body_radius(z)) * (0.92 - 0.45 * share) - radius * 0.85,
            z,
        )

    arch_back = descending(arch_z - 12)
    anterior = heart[1] - 2
    rise = [
        (heart[0] - 10, heart[1] + 4, heart[2] + 16),
        (heart[0] - 32, anterior - 6, carina - 22),
        (-20 + uniform(-6, 4), anterior + 2, carina + 6),
    ]
    passing = beside_x + 1.2 * radius + 2
    arch_back = (max(arch_back[0], passing), *arch_back[1:])
    over = [
        (-6, anterior + 4, arch_z - 8),
        (passing, 0.55 * anterior + 0.45 * arch_back[1], arch_z),
        (passing + 1, arch_back[1] - 10, arch_z),
    ]
    down = [
        arch_back,
        *(descending(z) for z in (carina - 15, carina - 60, 0.0, -45.0, -90.0, -130.0, (end - 130) / 2, end)),
    ]
    radii = radius * np.array(
        [1.35, 1.4, 1.35, 1.25, 1.15, 1.1, 1.05, 1.0, 1.0, 0.97, 0.93, 0.88, 0.8, 0.76, 0.72]
    )
    if rng.random() < 0.08:
        radii[-3:-1] *= uniform(1.3, 2.2)
    return np.array([*rise, *over, *down]), radii


def _draw_esophagus(frame: Frame, rng: np.random.Generator, trachea: np.ndarray) -> np.ndarray:
    carina = frame.carina_z
    aside = rng.uniform(0, 7)
    stomach = rng.uniform(24, 40)
    behind = [
        (trachea[n, 0] + aside, trachea[n, 1] + rng.uniform(15, 18), trachea[n, 2]) for n in (0, 1, 2, 3, 4)
    ]

    def spot(z: float, x: float, ahead: float) -> tuple[float, float, float]:
        return (
            x + float(frame.spine_x(z)),
            float(frame.vertebra_y(z)) - float(frame.body_radius(z)) - ahead,
            z,
        )

    lower = [
        spot(carina - 30, aside - 2, 12),
        spot(0.35 * carina, aside + 2, 18),
        spot(-5, aside + 6, 28),
        spot(-22, aside + 14, 36),
    ]
    return np.array([*behind, *lower, (stomach, lower[-1][1] - 6, -38)])
