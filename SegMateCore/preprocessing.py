"""What happens to a CT before a network sees it: stored in the checkpoint, applied by training and predict.

The steps run in this fixed order: orientation (closest RAS, permuting and flipping only), resampling to
`spacing_mm` (or native), clipping to `window_hu`, x = (hu + offset) * factor, windows of `context` slices.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from SegMateCore.cancelling import IsCancelled
from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import short
from SegMateCore.resampling import PADDING_FLOOR_HU, WorkingGrid, resample_hu, working_grid
from SegMateCore.volume import LARGEST_SPACING_MM, SMALLEST_SPACING_MM, Volume, are_spacings

# Far above any network's.
LARGEST_CONTEXT = 255
Z_POSITIONS = (None, "volume", "constant")


@dataclass(frozen=True)
class Preprocessing:
    """From a Volume to network input.

    spacing_mm: (i, j, k) of the working grid, None keeps the CT's own. window_hu: clipping range.
    scale: (offset, factor) of x = (hu + offset) * factor. context: slices per window, odd.
    slice_rows: the image axis that runs down the rows of a network slice, "j" (posterior to anterior) or "i"
    (left to right: how the original project cut its slices). z_position: what a FiLM network is told about a
    slice: "volume" = 0 at the lowest and 1 at the highest slice of the CT, "constant" = 0.5, None = nothing.
    """

    spacing_mm: tuple[float, float, float] | None
    window_hu: tuple[float, float]
    scale: tuple[float, float]
    context: int = 3
    slice_rows: str = "j"
    z_position: str | None = None
    orientation: str = "RAS"
    interpolation: str = "linear-antialiased"

    def __post_init__(self):
        def need(condition: bool, field: str, expected: str) -> None:
            if not condition:
                given = short(getattr(self, field))
                raise SegMateError(f"preprocessing: {field} is {given}, expected {expected}")

        spacing = self.spacing_mm
        need(spacing is None or (_numbers(spacing, 3) and are_spacings(spacing)), "spacing_mm",
             f"three numbers (i, j, k) from {SMALLEST_SPACING_MM:g} to {LARGEST_SPACING_MM:g} mm, or null for"
             " the CT's own")
        need(_numbers(self.window_hu, 2) and self.window_hu[0] < self.window_hu[1], "window_hu",
             "two rising numbers in HU")
        need(_numbers(self.scale, 2) and self.scale[1] != 0, "scale", "two numbers (offset, factor)")
        need(isinstance(self.context, int) and self.context % 2 == 1
             and 1 <= self.context <= LARGEST_CONTEXT, "context",
             f"an odd number of slices up to {LARGEST_CONTEXT}")
        need(self.slice_rows in ("i", "j"), "slice_rows", "'i' or 'j'")
        need(self.z_position in Z_POSITIONS, "z_position", f"one of {Z_POSITIONS}")
        need(self.orientation == "RAS", "orientation", "'RAS'")
        need(self.interpolation == "linear-antialiased", "interpolation", "'linear-antialiased'")

    @classmethod
    def from_dict(cls, entry: dict) -> Preprocessing:
        """From the JSON of a checkpoint. Raises SegMateError for unknown or missing fields."""
        known = set(cls.__dataclass_fields__)
        if not isinstance(entry, dict) or set(entry) - known or not {"window_hu", "scale"} <= set(entry):
            given = sorted(entry) if isinstance(entry, dict) else entry
            raise SegMateError(
                f"preprocessing has {given}, expected fields of {sorted(known)} with at least window_hu and"
                " scale; a newer version of this package may be needed"
            )
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
        return cls(**{"spacing_mm": None, **values})

    def to_dict(self) -> dict:
        """JSON-able, the inverse of from_dict."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def working_grid(self, canonical: Volume) -> WorkingGrid:
        """The network's grid on a canonical volume."""
        return working_grid(canonical, self.spacing_mm)

    def working_hu(
        self, canonical: Volume, grid: WorkingGrid, cancelled: IsCancelled = None
    ) -> np.ndarray:
        """HU on the working grid (K, J, I): float32, or on the CT's own grid its voxels themselves."""
        return canonical.voxels if grid.is_native else resample_hu(canonical, grid, cancelled)

    def normalise(self, hu: np.ndarray) -> np.ndarray:
        """Network values, float32, of HU of any shape."""
        offset, factor = self.scale
        low = max(self.window_hu[0], PADDING_FLOOR_HU)
        clipped = np.clip(np.asarray(hu, np.float32), low, self.window_hu[1])
        # One rounding at the end: offset and factor of imported checkpoints are far apart.
        return ((clipped.astype(np.float64) + offset) * factor).astype(np.float32)

    def z_positions(self, first: int, last: int, count: int) -> np.ndarray | None:
        """What FiLM is told about the working slices first..last-1 of `count`, float32 (last - first,)."""
        if self.z_position is None:
            return None
        if self.z_position == "constant" or count == 1:
            return np.full(last - first, 0.5, np.float32)
        return (np.arange(first, last) / (count - 1)).astype(np.float32)


def _numbers(values, count: int) -> bool:
    try:
        numbers = [value for value in values if not isinstance(value, bool) and math.isfinite(value)]
        return len(numbers) == len(values) == count
    except TypeError:
        return False
