"""From a tissue map to a CT: Hounsfield units, texture, resolution, noise, couch, field of view.

Works on slabs of slices and draws every slice's noise from its own generator, so that a phantom of any size
needs little more memory than its result and never depends on the slab size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from SegMateCore.data.phantom_canvas import Grid, smooth_field
from SegMateCore.data.tissue import draw_hu_table

LOWEST_HU, HIGHEST_HU = -1024, 3071
PADDINGS_HU = (-1024, -2048, -3024, -1000)

_SLAB = 16
_HALO = 2


@dataclass(frozen=True)
class Scanner:
    """One drawn scan: HU per tissue, texture, resolution and noise, couch and field of view (all mm or
    HU)."""

    hu: np.ndarray
    texture_sd_hu: np.ndarray
    phase: str
    noise_sd_hu: float
    noise_width_mm: float
    sharpness: float  # 0 soft kernel .. 1 edge-enhancing noise
    blur_mm: float
    couch: bool
    couch_gap_mm: float
    couch_hu: float
    couch_curve: float
    view_radius_share: float  # of half the larger side; above 1.5: no circle
    padding_hu: int

    @classmethod
    def draw(cls, rng: np.random.Generator, phase: str | None = None) -> Scanner:
        hu, info = draw_hu_table(rng, phase)
        uniform = rng.uniform
        return cls(
            hu=hu,
            texture_sd_hu=info.texture_sd_hu,
            phase=info.phase,
            noise_sd_hu=float(np.exp(uniform(np.log(5), np.log(35)))),
            noise_width_mm=uniform(0.4, 1.0),
            sharpness=uniform(0, 1) if rng.random() < 0.3 else 0.0,
            blur_mm=uniform(0.4, 1.0),
            couch=bool(rng.random() < 0.85),
            couch_gap_mm=uniform(2, 14),
            couch_hu=uniform(-500, 150),
            couch_curve=uniform(0, 0.0015),
            view_radius_share=uniform(0.94, 1.1) if rng.random() < 0.6 else 2.0,
            padding_hu=int(rng.choice(PADDINGS_HU)),
        )


def paint_image(tissue: np.ndarray, grid: Grid, spacing_mm, scanner: Scanner, seed: int) -> np.ndarray:
    """(K, J, I) int16 HU of a tissue map. grid: its positions; spacing_mm: (i, j, k). Padding is set here
    too."""
    image = np.empty(tissue.shape, np.int16)
    spacing = np.asarray(spacing_mm, float)[::-1]
    blur = np.minimum(scanner.blur_mm / spacing, 1.2)
    noise_width = max(scanner.noise_width_mm / float(spacing[1:].mean()), 0.35)
    couch = _couch(tissue, grid, scanner) if scanner.couch else None
    outside = outside_view(grid, scanner)
    for first in range(0, len(image), _SLAB):
        last = min(first + _SLAB, len(image))
        low, high = max(first - _HALO, 0), min(last + _HALO, len(image))
        slab = scanner.hu[tissue[low:high]]
        if couch is not None:
            np.copyto(slab, couch, where=(tissue[low:high] == 0) & (couch > -1000))
        slab = ndimage.gaussian_filter(slab, blur, mode="nearest", truncate=2.0)[first - low : last - low]
        part = Grid(grid.z_mm[first:last], grid.y_mm, grid.x_mm)
        slab += smooth_field(np.random.default_rng([seed, 1]), part, 60.0) * np.float32(
            0.15 * scanner.noise_sd_hu
        )
        for k in range(first, last):
            grain = _slice_noise(
                np.random.default_rng([seed, 2, k]), tissue.shape[1:], noise_width, scanner.sharpness
            )
            texture = scanner.texture_sd_hu[tissue[k]]
            slab[k - first] += grain * np.sqrt(texture**2 + np.float32(scanner.noise_sd_hu) ** 2)
        np.clip(np.rint(slab), LOWEST_HU, HIGHEST_HU, out=slab)
        if outside is not None:
            slab[:, outside] = scanner.padding_hu
        image[first:last] = slab
    return image


def outside_view(grid: Grid, scanner: Scanner) -> np.ndarray | None:
    """(J, I) mask of what lies outside the circle that the scanner reconstructs; None where there is no
    circle."""
    if scanner.view_radius_share > 1.5:
        return None
    x, y = grid.x_mm - grid.x_mm.mean(), grid.y_mm - grid.y_mm.mean()
    radius = max(np.abs(x).max(), np.abs(y).max()) * scanner.view_radius_share
    return x[None] ** 2 + y[:, None] ** 2 > radius**2


def _slice_noise(rng: np.random.Generator, shape, width: float, sharpness: float) -> np.ndarray:
    """(J, I) float32 of unit SD; width in voxels; sharpness takes away slow parts, as sharp kernels do."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(white, width, truncate=2.5)
    if sharpness > 0:
        grain -= np.float32(sharpness) * ndimage.gaussian_filter(white, 2.2 * width, truncate=2.5)
    return grain / max(float(grain.std()), 1e-6)


def _couch(tissue: np.ndarray, grid: Grid, scanner: Scanner) -> np.ndarray:
    """(J, I) float32 HU of the couch under the body, -2000 where there is none."""
    rows = np.flatnonzero((tissue[:: max(1, len(tissue) // 40), :, :] > 0).any(axis=(0, 2)))
    back = float(grid.y_mm[rows[-1]]) if len(rows) else float(grid.y_mm[-1])
    x = grid.x_mm - grid.x_mm.mean()
    depth = grid.y_mm[:, None] - (back + scanner.couch_gap_mm - scanner.couch_curve * x[None] ** 2)
    couch = np.full(depth.shape, -2000, np.float32)
    within = np.abs(x)[None] < 215
    couch[(depth > 0) & (depth < 32) & within] = -930
    couch[((np.abs(depth - 2) < 2) | (np.abs(depth - 30) < 1.5)) & within] = scanner.couch_hu
    return couch
