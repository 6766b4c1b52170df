"""Files of torch.save: what torch reads is what this reads, and nothing in a file ever runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SegMateCore.errors import SegMateError
from SegMateCore.pickle_data import BadPickle, Call, UnknownName, read_pickle
from SegMateCore.torch_archive import StoredTensor, TorchArchive

torch = pytest.importorskip("torch")

DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool, torch.bfloat16]  # fmt: skip


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'echo ran > "{self.marker}"',)


def saved(tmp_path: Path, value: object, **options) -> Path:
    path = tmp_path / "file.pth"
    torch.save(value, path, **options)
    return path


def refused(path: Path, *words: str) -> None:
    """Opening `path` raises one line with the path and each of the words."""
    with pytest.raises(SegMateError) as caught:
        TorchArchive(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    for word in words:
        assert word in text, text


def rewritten(path: Path, change: dict[str, bytes | None], names=lambda name: name, **options) -> Path:
    """`path` with some entries (by their last part) replaced or, where None, left out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            data = change.get(name.partition("/")[2], data)
            if data is not None:
                archive.writestr(names(name), data)
    return path


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_are_read_as_torch_reads_them(tmp_path, dtype):
    base = (torch.arange(24).reshape(2, 3, 4) - 7).to(dtype)
    tensors = {
        "whole": base, "transposed": base.permute(2, 0, 1), "slice": base[1:, ::2], "scalar": base[0, 0, 1],
        "empty": torch.zeros((0, 3), dtype=dtype),
    }  # fmt: skip
    with TorchArchive(saved(tmp_path, tensors)) as file:
        for key, tensor in tensors.items():
            found, expected = file.array(file.content[key]), tensor.float() if dtype.itemsize == 2 else tensor
            assert file.content[key].shape == tuple(tensor.shape)
            np.testing.assert_array_equal(found.astype(expected.numpy().dtype), expected.numpy())
            assert found.flags["C_CONTIGUOUS"] and found.flags["WRITEABLE"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_beside_the_tensors_are_plain(tmp_path, protocol):
    shared = ["a", 2**70, -1, 1.5, True, None, b"bytes", (1, (2,)), {"x": []}]
    value = {
        "values": shared, "again": shared, "ordered": OrderedDict(a=1),
        "scalars": [np.float32(1.5), np.int64(-3)],
        "half": np.float64(0.25), "flag": np.bool_(True), "parameter": torch.nn.Parameter(torch.ones(2)),
        "device": torch.device("cuda:0"), "size": torch.Size([1, 2]), "dtype": torch.float16,
        "default": defaultdict(list, a=[1]), "array": np.arange(3), "path": Path("x"), "set": {1, 2},
    }  # fmt: skip
    with TorchArchive(saved(tmp_path, value, pickle_protocol=protocol)) as file:
        content = file.content
    assert content["values"] == shared and content["again"] is content["values"]
    assert content["ordered"] == {"a": 1} and content["scalars"] == [1.5, -3]
    assert (content["half"], content["flag"]) == (0.25, True)
    assert isinstance(content["parameter"], StoredTensor)
    assert isinstance(content["device"], Call) and isinstance(content["array"], Call)


def test_an_optimisers_state_is_not_read(tmp_path):
    path = saved(tmp_path, {"weights": torch.ones(3), "optimizer": torch.zeros(1000)})
    read = []
    with TorchArchive(path) as file:
        file._read, genuine = lambda entry: read.append(entry.filename) or genuine(entry), file._read
        file.array(file.content["weights"])
    assert read == ["file/data/0"]


def test_code_never_runs_and_is_named(tmp_path):
    marker = tmp_path / "marker"
    for value in (Payload(marker), {"network_weights": {}, "logging": [Payload(marker)]}):
        path = saved(tmp_path, value)
        refused(path, f"{os.system.__module__}.system", "run code")
        assert not marker.exists()
    # The test's own teeth: torch's unpickler does run it.
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'touch MARKER'\ntR.",
        b"(S'touch MARKER'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch MARKER'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",
        b"cbuiltins\neval\n(S'open(\"MARKER\",\"w\")'\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\nlist\nS'__class__'\ntR.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_every_way_to_a_call_is_closed(attack, tmp_path):
    attack = attack.replace(b"MARKER", str(tmp_path / "m").encode())
    with pytest.raises(BadPickle):
        read_pickle(attack, known=lambda name: name.module == "builtins" and name.name == "list")
    assert not (tmp_path / "m").exists()


def test_a_name_of_the_list_in_another_module_is_unknown():
    with pytest.raises(UnknownName, match="os.list"):
        read_pickle(b"cos\nlist\n.", known=lambda name: (name.module, name.name) == ("builtins", "list"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_refused(data):
    try:
        read_pickle(data, known=lambda name: False)
    except BadPickle:
        pass


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.sampled_from([3, 4, 5]),
)
def test_data_is_read_as_pickle_reads_it(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), known=lambda name: False) == value


def read_or_refused(path) -> None:
    """Every tensor, or an error in one line: nothing else may come of a file."""
    try:
        with TorchArchive(path) as file:
            for tensor in file.content.values() if isinstance(file.content, dict) else ():
                if isinstance(tensor, StoredTensor):
                    file.array(tensor)
    except SegMateError:
        pass


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_changed_byte_of_the_pickle_is_refused_or_harmless(tmp_path_factory, position, value):
    path = saved(tmp_path_factory.mktemp("changed"), {"w": torch.ones(4, 2), "list": [1, "a"]})
    with zipfile.ZipFile(path) as archive:
        data = bytearray(archive.read("file/data.pkl"))
    data[position % len(data)] ^= value
    rewritten(path, {"data.pkl": bytes(data)})
    read_or_refused(path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_changed_byte_of_the_file_is_refused_or_harmless(tmp_path_factory, position, value):
    """Also of the tables of the ZIP: names that are no text, places beyond the end."""
    path = saved(tmp_path_factory.mktemp("changed"), {"w": torch.ones(4, 2), "list": [1, "a"]})
    data = bytearray(path.read_bytes())
    # Most of a small file is what torch fills up with; the tables lie at its end.
    data[-1 - position % 1000] ^= value
    path.write_bytes(data)
    read_or_refused(path)


def test_names_that_are_no_text_are_refused(tmp_path):
    """The name before the entry itself, which zipfile reads only when it opens the entry."""
    path = saved(tmp_path, {"w": torch.ones(4)})
    whole = path.read_bytes()
    start = whole.index(b"PK\x03\x04")
    flags = start + 6
    data = bytearray(whole)
    data[flags + 1] |= 0x08  # says that the name is UTF-8
    data[start + 30] = 0xFF
    path.write_bytes(data)
    refused(path, "damaged")


def test_a_cut_file_is_refused_at_every_length(tmp_path):
    whole = saved(tmp_path, {"w": torch.ones(40)}).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path = tmp_path / "cut.pth"
        path.write_bytes(whole[:length])
        refused(path)


def test_damaged_numbers_are_refused_by_their_checksum(tmp_path):
    path = saved(tmp_path, {"w": torch.full((40,), 1.25)})
    damaged = path.read_bytes().replace(np.full(40, 1.25, "f4").tobytes(), np.full(40, 1.5, "f4").tobytes())
    path.write_bytes(damaged)
    with TorchArchive(path) as file, pytest.raises(SegMateError, match="damaged"):
        file.array(file.content["w"])


@pytest.mark.parametrize("name", ["../{}", "/{}", "a/../../{}", "C:/{}", "..\\{}"])
def test_entries_that_point_out_of_the_archive_are_refused(tmp_path, name):
    path = saved(tmp_path, {"w": torch.ones(4)})
    refused(rewritten(path, {}, lambda entry: name.format(entry)), "out of the archive")


def test_compressed_and_doubled_entries_are_refused(tmp_path):
    path = saved(tmp_path, {"w": torch.zeros(10_000)})
    refused(rewritten(path, {}, compression=zipfile.ZIP_DEFLATED), "compressed")
    path = saved(tmp_path, {"w": torch.ones(4)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("file/data.pkl", b"N.")
    refused(path, "twice")


def test_missing_and_short_storages_are_refused(tmp_path):
    refused(rewritten(saved(tmp_path, {"w": torch.ones(4)}), {"data/0": None}), "storage 0")
    refused(rewritten(saved(tmp_path, {"w": torch.ones(4)}), {"data/0": b"123"}), "storage 0")
    refused(rewritten(saved(tmp_path, {"w": torch.ones(4)}), {"data.pkl": None}), "data.pkl")


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    huge = torch.ones(1).expand(2**40)
    refused(saved(tmp_path, {"w": huge}), "larger than its storage")


def test_a_step_along_an_axis_of_one_element_may_be_any_number(tmp_path):
    """torch itself writes such steps; here one that no machine's word holds."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuK\x01tQK\x00K\x01\x85\x8a\x10" + (10**30).to_bytes(16, "little") + b"\x85tR"
    )
    path = rewritten(saved(tmp_path, {"w": torch.tensor([1.5])}), {"data.pkl": b"\x80\x02" + tensor + b"."})
    with TorchArchive(path) as file:
        assert file.array(file.content).tolist() == [1.5]


def test_shapes_that_no_array_has_are_refused(tmp_path):
    refused(saved(tmp_path, {"w": torch.ones([1] * 40)}), "impossible shape")
    refused(saved(tmp_path, {"w": torch.ones(0).expand(2**50, 0)}), "impossible shape")


def test_named_weights_come_out_of_their_container(tmp_path):
    weights = {"a.weight": torch.ones(2), "b": torch.zeros(1)}
    wrapped = {f"module.{key}": tensor for key, tensor in weights.items()}
    for value in (weights, wrapped, {"state_dict": wrapped, "epoch": 3}):
        with TorchArchive(saved(tmp_path, value)) as file:
            found = file.named_tensors(("model", "state_dict"))
            assert {key: file.array(tensor).tolist() for key, tensor in found.items()} == {
                "a.weight": [1, 1], "b": [0]
            }
    for value, words in (([1], "a list, not named"), ({}, "not named"), ({"n": 3}, "'n' is a int")):
        with TorchArchive(saved(tmp_path, value)) as file, pytest.raises(SegMateError, match=words):
            file.named_tensors(("model",))


def test_torchscript_is_refused_with_what_to_give(tmp_path):
    path = tmp_path / "model.ts"
    torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4)).save(path)
    refused(path, "TorchScript", "models/model.pt")


def test_other_files_are_refused(tmp_path):
    refused(tmp_path / "missing.pth", "No such file")
    refused(saved(tmp_path, {"w": torch.ones(2)}, _use_new_zipfile_serialization=False), "1.6")
    (tmp_path / "text.pth").write_text("weights")
    refused(tmp_path / "text.pth", "torch.save")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x")
    (tmp_path / "zip.pth").write_bytes(buffer.getvalue())
    refused(tmp_path / "zip.pth", "data.pkl")
