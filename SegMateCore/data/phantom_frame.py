"""The frame of one synthetic body: landmarks and curves that every organ is placed by, and the body's hull.

`Frame.draw(rng)` draws a patient (size, fat, chest and abdomen proportions, spine curves). Curves are
functions of the height z in mm above the right diaphragm's dome. Proportions were measured on public chest
and abdomen CTs and widened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

NECK_MM = 105.0
"""Height of the neck's upper end above the lungs' apex."""


@dataclass(frozen=True)
class Frame:
    """One patient's measures, mm (see the module's text for the axes)."""

    size: float  # overall factor of organ sizes, about 0.85..1.15
    female: bool
    apex_z: float  # top of the lungs
    carina_z: float
    crest_z: float  # iliac crests; the aorta divides near here
    hip_z: float  # centres of the femoral heads
    chest_half_width: float  # inner
    waist_half_width: float  # of the muscle hull
    depth: float  # half depth of the muscle hull at mid-chest
    belly: float  # factor of the front depth at the abdomen
    fat: float  # subcutaneous fat, mm
    visceral_fat: float  # 0..1: how far apart abdominal organs lie
    wall: float  # thickness of the muscular wall
    lordosis: float
    kyphosis: float
    scoliosis: tuple[float, float, float]  # amplitude, period, phase
    cord_depth_factor: float
    vertebra_radius: float
    canal_radius: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Frame:
        uniform = rng.uniform
        size = float(np.clip(rng.normal(1.0, 0.08), 0.82, 1.2))
        apex = uniform(158, 225) * size**0.5
        crest = -uniform(185, 235) * size**0.5
        fat = float(np.clip(rng.gamma(2.2, 7.0), 3, 55))
        width = uniform(108, 140) * size
        return cls(
            size=size,
            female=bool(rng.random() < 0.5),
            apex_z=apex,
            carina_z=apex * uniform(0.40, 0.5),
            crest_z=crest,
            hip_z=crest - uniform(118, 140),
            chest_half_width=width,
            waist_half_width=width * uniform(0.93, 1.1),
            depth=uniform(86, 112) * size,
            belly=uniform(0.82, 1.0) + 0.006 * fat * uniform(0, 1),
            fat=fat,
            visceral_fat=float(np.clip(uniform(0, 0.6) + fat / 90, 0, 1)),
            wall=uniform(9, 18),
            lordosis=uniform(0.4, 1.3),
            kyphosis=uniform(0.35, 1.15),
            scoliosis=(uniform(0, 9), uniform(180, 420), uniform(0, 6.28)),
            cord_depth_factor=uniform(0.9, 1.1),
            vertebra_radius=uniform(15.5, 19.5) * size**0.5,
            canal_radius=uniform(7.0, 9.0),
        )

    def _curve(self, z, heights, values) -> np.ndarray:
        return PchipInterpolator(heights, values)(np.clip(z, heights[0], heights[-1]))

    def back_y(self, z) -> np.ndarray:
        """y of the muscle hull's back."""
        top = self.apex_z
        heights = [
            self.hip_z - 90,
            self.hip_z,
            self.crest_z - 50,
            -130,
            -50,
            0.35 * top,
            0.65 * top,
            top,
            top + 60,
        ]
        drop = [
            30,
            6,
            2 * self.lordosis,
            20 * self.lordosis,
            8 * self.lordosis,
            0,
            4,
            28 * self.kyphosis,
            50 * self.kyphosis,
        ]
        return self._curve(z, heights, self.depth - np.array(drop))

    def front_y(self, z) -> np.ndarray:
        """y of the muscle hull's front (negative)."""
        top, belly = self.apex_z, self.belly
        heights = [
            self.hip_z - 90,
            self.hip_z,
            self.crest_z - 20,
            -130,
            -50,
            0.2 * top,
            0.5 * top,
            0.8 * top,
            top + 5,
            top + 45,
        ]
        share = [0.62, 0.68, 0.9 * belly, belly, 0.5 + 0.5 * belly, 1.0, 0.93, 0.72, 0.42, 0.40]
        front = -self.depth * np.array(share)
        neck = self.vertebra_y(np.array(heights[-2:])) - [56, 60]
        front[-2:] = np.minimum(front[-2:], neck)
        front[-3] = min(front[-3], front[-2] - 8)
        return self._curve(z, heights, front)

    def hull_half_width(self, z) -> np.ndarray:
        """Half width of the muscle hull: neck, shoulders, chest, waist, hips."""
        top, chest, waist = self.apex_z, self.chest_half_width, self.waist_half_width
        heights = [
            self.hip_z - 90,
            self.hip_z,
            self.crest_z - 20,
            self.crest_z + 45,
            -60,
            0.4 * top,
            0.7 * top,
            top - 12,
            top + 18,
            top + 50,
        ]
        hips = self.size**0.5 * (1.03 if self.female else 0.98)
        widths = [
            150 * hips,
            160 * hips,
            146 * hips,
            waist,
            (waist + chest) / 2 + 12,
            chest + 22,
            chest + 36,
            chest + 50,
            95,
            58,
        ]
        return self._curve(z, heights, widths)

    def fat_mm(self, z) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Subcutaneous fat at the sides, in front and behind."""
        top = self.apex_z
        heights = [self.hip_z, self.crest_z, -130, 0, 0.5 * top, top, top + 50]
        curves = (
            [1.1, 1.1, 1.0, 0.8, 0.7, 0.6, 0.35],
            [0.9, 1.3, 1.2, 0.7, 0.5, 0.4, 0.3],
            [1.3, 1.2, 0.9, 0.6, 0.6, 0.6, 0.5],
        )
        return tuple(self.fat * self._curve(z, heights, shares) for shares in curves)

    def cord_y(self, z) -> np.ndarray:
        """y of the spinal canal's middle."""
        top = self.apex_z
        heights = [self.hip_z, self.crest_z - 60, -130, -60, 0.3 * top, 0.55 * top, 0.78 * top, top, top + 40]
        depth = [30, 40, 58, 45, 34, 36, 48, 62, 64]
        return self.back_y(z) - self.cord_depth_factor * self._curve(z, heights, depth)

    def spine_x(self, z) -> np.ndarray:
        amplitude, period, phase = self.scoliosis
        return amplitude * np.sin(np.asarray(z) * (2 * np.pi / period) + phase)

    def body_radius(self, z) -> np.ndarray:
        """Radius of the vertebral bodies (they widen downwards)."""
        return self.vertebra_radius * self._curve(z, [self.crest_z, -60, self.apex_z], [1.3, 1.1, 0.8])

    def vertebra_y(self, z) -> np.ndarray:
        """y of the vertebral bodies' middle."""
        return self.cord_y(z) - self.canal_radius - 0.82 * self.body_radius(z)

    def chest_contour(self, z) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inner half width, front y and back y of the rib cage."""
        top = self.apex_z
        heights = np.array([-1.2, -0.5, 0.1, 0.5, 0.66, 0.77, 0.88, 0.95, 1.0]) * top
        width = self.chest_half_width * self._curve(
            z, heights, [0.93, 1.0, 1.0, 0.98, 0.93, 0.83, 0.66, 0.48, 0.2]
        )
        front = self.front_y(z) + 17
        back = (
            self.back_y(z)
            - 13
            - 0.45 * np.clip(self._curve(z, heights, [20, 6, 0, 0, 4, 16, 30, 40, 50]), 0, None)
        )
        middle = (front + back) / 2 + 4
        close = self._curve(z, heights, [1, 1, 1, 1, 1, 0.96, 0.86, 0.68, 0.25])
        return width, middle + (front - middle) * close, middle + (back - middle) * close
