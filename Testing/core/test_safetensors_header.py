"""Headers of .safetensors files: what the format's own library reads, and nothing that it would refuse."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from SegMateCore.errors import SegMateError
from SegMateCore.weights_file import DTYPES, WeightsFile


def write(path, header: object, data: bytes):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start: int, stop: int, shape=None, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape,
            "data_offsets": [start, stop]}  # fmt: skip


def test_every_type_as_the_library_wrote_it(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {name: (rng.normal(size=(3, 5)) * 9).astype(name) for name in DTYPES}
    tensors |= {"scalar": np.array(7.5, np.float32), "empty": np.zeros((0, 4), np.float16)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"key": "wört"})
    file = WeightsFile(tmp_path / "x.safetensors")
    assert file.metadata == {"key": "wört"} and file.keys == tuple(sorted(tensors))
    for key, array in file.items(file.keys):
        assert array.dtype == tensors[key].dtype and array.shape == tensors[key].shape
        np.testing.assert_array_equal(array, tensors[key])


BAD = {
    "gap": {"a": entry(0, 4), "b": entry(8, 16)},
    "overlap": {"a": entry(0, 8), "b": entry(4, 16)},
    "twice the same place": {"a": entry(0, 16), "b": entry(0, 16)},
    "too short": {"a": entry(0, 12)},
    "too long": {"a": entry(0, 20)},
    "does not fit its shape": {"a": entry(0, 16, shape=[3])},
    "backwards": {"a": entry(16, 0, shape=[4])},
    "negative": {"a": entry(-4, 16), "b": entry(0, 16)},
    "huge shape": {"a": entry(0, 16, shape=[2**62, 4, 2**62])},
    "fraction": {"a": entry(0, 16, shape=[4.0])},
    "truth as number": {"a": entry(0, 16, shape=[True, 4])},
    "unknown type": {"a": entry(0, 16, dtype="F33")},
    "type of a wrong kind": {"a": entry(0, 16, dtype=["F32"])},
    "three offsets": {"a": {**entry(0, 16), "data_offsets": [0, 8, 16]}},
    "field missing": {"a": {"dtype": "F32", "shape": [4]}},
    "tensor is a number": {"a": 3},
    "metadata of numbers": {"__metadata__": {"x": 1}, "a": entry(0, 16)},
    "metadata is a text": {"__metadata__": "x", "a": entry(0, 16)},
    "deep": b'{"a":' + b"[" * 100_000,
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_headers_are_refused(tmp_path, case):
    path = write(tmp_path / "x.safetensors", BAD[case], b"\0" * 16)
    with pytest.raises(SegMateError, match="not a whole .safetensors file") as caught:
        WeightsFile(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_types_that_numpy_lacks_are_refused_only_when_read(tmp_path):
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 8, [4], "BF16"), "b": entry(8, 16)}, b"\0" * 16)
    file = WeightsFile(path)
    assert [key for key, _ in file.items(["b"])] == ["b"]
    with pytest.raises(SegMateError, match='"a" cannot be read.*BF16'):
        list(file.items(["a"]))


def test_a_file_that_was_cut_off_or_removed_after_it_was_opened(tmp_path):
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 16)}, b"\0" * 16)
    file = WeightsFile(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SegMateError, match="cut off"):
        list(file.items(["a"]))
    path.unlink()
    with pytest.raises(SegMateError, match="cannot read"):
        list(file.items(["a"]))


offsets = st.integers(-4, 24)


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.builds(
            lambda start, stop, shape, dtype: {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]},
            offsets, offsets, st.lists(st.integers(-1, 5), max_size=3),
            st.sampled_from(["F32", "F16", "U8", "I64", "BOOL", "BF16", "X"]),
        ),
        max_size=3,
    ),
    st.integers(0, 24),
)  # fmt: skip
@settings(max_examples=300)
def test_what_is_taken_the_library_takes_too(tmp_path_factory, header, size):
    path = write(tmp_path_factory.getbasetemp() / "fuzz.safetensors", header, b"\1" * size)
    try:
        ours = set(WeightsFile(path).keys)
    except SegMateError:
        return
    try:
        with safe_open(str(path), framework="numpy") as tensors:
            assert set(tensors.keys()) == ours
    except SafetensorError as error:
        raise AssertionError(f"the library refuses it: {error}") from error
