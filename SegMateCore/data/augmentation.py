"""One augmented training chunk of one case: where to look, how to bend space, what to paint and spoil.

Takes Sources, gives Chunk values: HU and labels of `slices` axial slices (plus the neighbours
that the network's window needs) on a rows x columns crop. Space is sampled once, by one smooth map that
combines scales, rotations and two free-form grids, so that image, tissue and labels cannot come apart.
Arrays are canonical RAS: axis 2 (columns) is left to right, so a mirrored chunk swaps the paired channels
too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from SegMateCore.data.degradation import degrade
from SegMateCore.data.mirroring import MirrorNames
from SegMateCore.data.painting import paint_phantom, repaint_ct, shift_tissues
from SegMateCore.data.sources import Source
from SegMateCore.data.tissue import TISSUE_INDEX, TISSUES
from SegMateCore.training.recipe import Augmentation, Sampling

# Tissue and label share one volume, so that a single nearest-neighbour look-up serves both.
LABEL_BASE = 256
# Random offset of a crop's centre from the body's: (rows, columns), in working voxels.
CENTRE_JITTER = (18.0, 22.0)
SLICE_JITTER = 4.0
OUTSIDE_HU = -1000.0


@dataclass(frozen=True)
class Chunk:
    """hu: float32 (S, H, W); labels: uint8 (S, H, W), 0 or channel + 1; annotated: bool (C,).

    heights: float32 (S,), 0 at the lowest and 1 at the highest slice of the case (0.5 in a case of one), at
    the chunk's middle.
    """

    hu: Tensor
    labels: Tensor
    annotated: Tensor
    heights: Tensor


class Augmenter:
    """Makes one chunk; everything random comes from the seed of its generators.

    partners: see OrganSet.mirror_partners; spacing_mm: of the working grid (the
    free-form amplitudes are in mm).
    """

    def __init__(
        self,
        options: Augmentation,
        sampling: Sampling,
        context: int,
        partners: tuple[int | None, ...],
        spacing_mm: float,
        rng: np.random.Generator,
    ):
        self.options = options
        self.sampling = sampling
        self.depth = sampling.chunk_slices + context - 1
        self.partners = partners
        self.spacing_mm = spacing_mm
        self.rng = rng
        self.noise = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def chunk(self, source: Source, middle_slice: float) -> Chunk:
        """One chunk of a case around a slice."""
        rng, options = self.rng, self.options
        positions = self._positions(source, middle_slice)
        hu, tissue, labels, tissue_mean_hu = _sample(source, positions)
        if hu is None:
            hu = paint_phantom(tissue, rng, self.noise)
        elif source.is_complete and rng.random() < options.repaint:
            hu = repaint_ct(hu, tissue, tissue_mean_hu, rng, self.noise)
        elif rng.random() < options.hu_shift:
            hu = shift_tissues(hu, tissue, rng)
        hu = torch.where(_inside(positions, source.shape), hu, torch.tensor(OUTSIDE_HU))
        if options.degradation:
            hu, labels = degrade(hu, labels, tissue == TISSUE_INDEX["outside air"], rng, self.noise)
        annotated = torch.tensor(source.annotated)
        if rng.random() < options.mirror:
            hu, labels, annotated = mirrored(hu, labels, annotated, self.partners)
        middle = positions[:, positions.shape[1] // 2, positions.shape[2] // 2, 0]
        last = source.shape[0] - 1
        heights = (middle / last).clamp(0, 1) if last else torch.full_like(middle, 0.5)
        return Chunk(hu.contiguous(), labels.contiguous(), annotated, heights)

    def _positions(self, source: Source, middle_slice: float) -> Tensor:
        """Source voxel (k, j, i) of every chunk voxel, float32 (S, H, W, 3)."""
        rows, columns = self.sampling.rows, self.sampling.columns
        axes = [
            torch.arange(count, dtype=torch.float32) - (count - 1) / 2
            for count in (self.depth, rows, columns)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        positions = grid @ self._linear_map().T + self._centre(source, middle_slice)
        for nodes, amplitude_mm in ((4, self.options.coarse_warp_mm), (8, self.options.fine_warp_mm)):
            if amplitude_mm > 0:
                positions = positions + self._warp(nodes, amplitude_mm / self.spacing_mm)
        return positions

    def _linear_map(self) -> Tensor:
        """(3, 3) from chunk offsets (k, j, i) to source offsets."""
        uniform, options = self.rng.uniform, self.options
        scale = np.exp(uniform(-options.axis_scale, options.axis_scale, 3))
        scale *= np.exp(uniform(-options.overall_scale, options.overall_scale))
        if self.rng.random() < 0.5:
            scale[0] *= uniform(*options.slice_spacing)
        turn = np.eye(3)
        for (first, second), limit in zip(((1, 2), (0, 2), (0, 1)), options.rotation_deg):
            angle = np.deg2rad(uniform(-limit, limit))
            plane = np.eye(3)
            plane[first, first] = plane[second, second] = np.cos(angle)
            plane[first, second], plane[second, first] = -np.sin(angle), np.sin(angle)
            turn = turn @ plane
        return torch.from_numpy((turn / scale).astype(np.float32))

    def _centre(self, source: Source, middle_slice: float) -> Tensor:
        k = middle_slice + self.rng.uniform(-SLICE_JITTER, SLICE_JITTER)
        j, i = (
            middle + self.rng.uniform(-jitter, jitter) for middle, jitter in zip(source.centre, CENTRE_JITTER)
        )
        return torch.tensor([k, j, i], dtype=torch.float32)

    def _warp(self, nodes: int, amplitude: float) -> Tensor:
        """Smooth random displacement in voxels, (S, H, W, 3), from a coarse grid of normal vectors."""
        strength = amplitude * self.rng.uniform(0.2, 1.0)
        coarse = torch.randn((1, 3, max(2, nodes // 2), nodes, nodes), generator=self.noise) * strength
        size = (self.depth, self.sampling.rows, self.sampling.columns)
        return functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0].permute(
            1, 2, 3, 0
        )


def mirrored(
    hu: Tensor, labels: Tensor, annotated: Tensor, partners: tuple[int | None, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The mirror image about the sagittal plane: columns reversed, left and right organs renamed."""
    names = MirrorNames(partners)
    renaming = torch.tensor(names.renaming, dtype=torch.uint8)
    return hu.flip(2), renaming[labels.flip(2).long()], names.annotated(annotated)


def _sample(source: Source, positions: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """(hu float32 or None, tissue int64, labels uint8), each (S, H, W), and the mean HU of every tissue.

    HU linear, numbers nearest. Outside the image in-plane everything is air; beyond the first and last slice
    these repeat, as in predict.
    """
    count = source.shape[0]
    low, high = (float(value) for value in torch.aminmax(positions[..., 0]))
    first = int(np.clip(np.floor(low), 0, count - 1))
    last = int(np.clip(np.ceil(high) + 1, first + 1, count))
    hu, tissue, labels = source.slab(first, last)
    extent = torch.tensor([last - first, *source.shape[1:]], dtype=torch.float32)
    shifted = positions - torch.tensor([first, 0.0, 0.0])
    # grid_sample's own units: -1 and 1 are the outer faces of the first and last voxel; (x, y, z) order.
    unit = ((2 * shifted + 1) / extent - 1).flip(-1)[None]

    def look_up(slab: np.ndarray, mode: str) -> Tensor:
        volume = torch.from_numpy(slab.astype(np.float32))[None, None]
        return functional.grid_sample(volume, unit, mode=mode, padding_mode="border", align_corners=False)[
            0, 0
        ]

    code = look_up(tissue.astype(np.float32) * LABEL_BASE + labels, "nearest").long()
    inside = _inside(positions, source.shape)
    code = torch.where(inside, code, torch.zeros_like(code))
    tissues, numbers = code // LABEL_BASE, (code % LABEL_BASE).to(torch.uint8)
    if hu is None:
        return None, tissues, numbers, None
    return look_up(hu, "bilinear"), tissues, numbers, _tissue_means(hu, tissue)


def _inside(positions: Tensor, shape: tuple[int, int, int]) -> Tensor:
    rows, columns = shape[1:]
    j, i = positions[..., 1], positions[..., 2]
    return (j >= -0.5) & (j <= rows - 0.5) & (i >= -0.5) & (i <= columns - 0.5)


def _tissue_means(hu: np.ndarray, tissue: np.ndarray) -> Tensor:
    """Mean HU of each tissue here, float32 (len(TISSUES),); 0 for tissues that are not here."""
    flat = tissue.ravel()
    counts = np.bincount(flat, minlength=len(TISSUES))
    sums = np.bincount(flat, weights=hu.ravel(), minlength=len(TISSUES))
    return torch.from_numpy((sums / np.maximum(counts, 1)).astype(np.float32))
