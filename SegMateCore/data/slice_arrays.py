"""Volumes on disk whose slices are read singly: compressed .b2nd files (Blosc2), one chunk per slice.

Takes arrays (K, J, I), gives bytes to write and slices to read. A file is opened anew at each read, which
costs a tenth of a millisecond and leaves nothing to share: any process and any thread may read, before or
after a fork. Figures beside plain memory maps are in docs/store.md. Needs the package blosc2 (extra "train").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from SegMateCore.errors import SegMateError

# What is read again and again in training is kept for speed, the rest for size: figures in docs/store.md.
FAST, SMALL = "fast", "small"
PREPARE_AGAIN = "run the same `segmate prepare` again, which mends it"
# A table of one entry, "b2nd", in MessagePack.
_LAYERS_AT, _ARRAY_ALONE = 91, b"\xde\x00\x01\xa4b2nd"


def packed(array: np.ndarray, kept_for: str) -> bytes:
    """The content of a .b2nd file for an array (K, J, I) of numbers, the same bytes each time.

    kept_for: FAST or SMALL.
    """
    contiguous = np.ascontiguousarray(array)
    return require_blosc2().asarray(contiguous, **_settings(array.shape, kept_for)).to_cframe()


def write_slices(
    path: Path, planes: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: type, kept_for: str
) -> None:
    """Write a .b2nd file from its slices (J, I), one after another: no more than one is held.

    Raises SegMateError where it cannot be written.
    """
    blosc2, settings = require_blosc2(), _settings(shape, kept_for)
    try:
        stored = blosc2.empty(shape, dtype, urlpath=str(path), mode="w", contiguous=True, **settings)
        for k, plane in enumerate(planes):
            stored[k] = plane
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise SegMateError(f"cannot write {path} ({reason}): is there enough space?") from error


def _settings(shape: tuple[int, int, int], kept_for: str) -> dict:
    blosc2 = require_blosc2()
    codecs = {
        FAST: {"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE]},
        SMALL: {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.BITSHUFFLE]},
    }
    one_slice = (1, *shape[1:])
    return {"chunks": one_slice, "blocks": one_slice, "cparams": {**codecs[kept_for], "nthreads": 1}}


def read_slices(
    path: Path, first: int, last: int, shape: tuple[int, int, int], advice: str = PREPARE_AGAIN
) -> np.ndarray:
    """Slices first..last-1 of the file, (last - first, J, I); shape (K, J, I): what the file has to hold.

    advice: what to do about a file that is no good.

    Raises SegMateError for slices outside the volume, and for a file that is missing or damaged.
    """
    if not 0 <= first < last <= shape[0]:
        raise SegMateError(
            f"{path}: slices {first} to {last} asked for, expected them within 0 to {shape[0]}"
        )
    blosc2 = require_blosc2()
    try:
        _require_plain(path)
        stored = blosc2.open(str(path), mmap_mode="r", dparams={"nthreads": 1})
        if tuple(stored.shape) != tuple(shape):
            raise SegMateError(f"{path} holds a volume of shape {stored.shape}, expected {shape}: {advice}")
        if stored.dtype.kind not in "iuf":
            raise SegMateError(f"{path} holds {stored.dtype!r:.40}, expected numbers: {advice}")
        return stored[first:last]
    except FileNotFoundError:
        raise SegMateError(f"{path} is missing: {advice}") from None
    except SegMateError:
        raise
    # Damaged bytes show in as many ways as there are steps in opening such a file.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SegMateError(f"{path} cannot be read ({reason}): {advice}") from error


def _require_plain(path: Path) -> None:
    """Raise ValueError for a file that is more than an array.

    In a file of Blosc2 may lie expressions, functions as source code and addresses of other files, which
    versions before 4.14.1 build, and run, on opening it. Each has a layer of its own beside that of the array
    (format: README_CFRAME_FORMAT of C-Blosc2; the table of layers stands at a fixed place).
    """
    with open(path, "rb") as stream:
        head = stream.read(_LAYERS_AT + len(_ARRAY_ALONE))
    if head[_LAYERS_AT:] != _ARRAY_ALONE:
        raise ValueError("it is not an array alone")


def require_blosc2() -> ModuleType:
    """The package blosc2. Raises SegMateError where it is not installed."""
    try:
        import blosc2
    except ImportError as error:
        raise SegMateError(
            f"training data needs the package blosc2 ({error}): pip install 'segmate-core[train]'"
        ) from None
    return blosc2
