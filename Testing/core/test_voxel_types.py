"""Stored numbers to int16 or float32, chunk by chunk."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.errors import SegMateError
from SegMateCore.voxel_types import CHUNK_VALUES, chunks_of, collect


@given(st.lists(st.lists(st.integers(-50_000, 50_000), min_size=1), min_size=1))
def test_int16_exactly_when_every_value_fits(rows):
    flat = [value for row in rows for value in row]
    found = collect((np.array(row, np.int32) for row in rows), len(flat))
    fits = all(-32768 <= value <= 32767 for value in flat)
    assert found.dtype == (np.int16 if fits else np.float32)
    assert found.tolist() == flat


def test_scaling_by_hand():
    assert collect([np.array([0, 4095], np.uint16)], 2, 1, -1024).tolist() == [-1024, 3071]
    found = collect([np.array([1, 2], np.uint8)], 2, 0.1, 0)
    assert found.dtype == np.float32
    # One rounding, from the exact product to float32.
    assert found.tolist() == np.array([0.1, 0.2], np.float32).tolist()


def test_too_few_and_too_many_voxels_are_refused():
    with pytest.raises(SegMateError, match="there are 2 of the 3 voxels"):
        collect([np.zeros(2, np.int16)], 3)
    with pytest.raises(SegMateError, match="more than the 1 voxels"):
        collect([np.zeros(2, np.int16)], 1)


def test_memory_is_the_result_and_a_chunk():
    volume = np.zeros((16, CHUNK_VALUES), np.float64)
    tracemalloc.start()
    found = collect(chunks_of(volume), volume.size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A first int16 array is given up for the float32 one at the first chunk.
    assert peak < found.nbytes * 1.5 + 2 * CHUNK_VALUES * 8
