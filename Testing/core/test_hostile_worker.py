"""What a worker hears from a program that is not ours; archives of torch.save that are damaged on purpose."""

from __future__ import annotations

import zipfile

import pytest
from conversation import Conversation
from small_ct import write_ct

from SegMateCore.errors import SegMateError
from SegMateCore.torch_archive import TorchArchive
from SegMateCore.worker_protocol import LONGEST_LINE, BadRequest, parse_request


def test_a_line_without_end_is_not_collected(tmp_path):
    with Conversation(tmp_path) as worker:
        worker.process.stdin.write(b"x" * (LONGEST_LINE + 2))
        worker.process.stdin.flush()
        assert worker.answer(None)["kind"] == "refused"
        assert worker.process.wait(30) == 0


def test_voxels_whose_header_is_none(tmp_path, bands_onnx):
    """numpy takes it apart like Python's text, and raises what the tokenizer raises."""
    small = write_ct(tmp_path / "ct.nii.gz", 1)
    with Conversation(tmp_path).opened(bands_onnx) as worker:
        fields = worker.volume(small.voxels, small.affine)
        data = bytearray((worker.folder / "voxels.npy").read_bytes())
        data[10:30] = b"{'descr': (((((((((("
        (worker.folder / "voxels.npy").write_bytes(data)
        kind, message = worker.failure("run", **fields)
        assert kind == "refused" and "cannot read the voxels" in message


@pytest.mark.parametrize("depth", [70, 900, 100_000])
def test_requests_that_are_nested_deeply(depth):
    for line in ("[" * depth + "]" * depth, f'{{"id": 1, "op": {"[" * depth}{"]" * depth}}}'):
        with pytest.raises(BadRequest):
            parse_request(line.encode())


def test_an_archive_whose_local_header_names_its_entry_in_no_encoding(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/data.pkl", b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    data[7] |= 0x08  # "the name is UTF-8", in front of the entry alone
    data[30] = 0xFF
    path.write_bytes(data)
    with pytest.raises(SegMateError, match="is damaged"):
        TorchArchive(path)


@pytest.mark.parametrize("count", [10**6, 10**12])
def test_a_tensor_that_is_larger_than_its_storage(tmp_path, count):
    """One number, repeated by strides of 0."""
    torch = pytest.importorskip("torch")
    from SegMateCore.checkpoint import Checkpoint

    torch.save({"w": torch.ones(1).expand(count)}, tmp_path / "a.pth")
    with pytest.raises(SegMateError):
        TorchArchive(tmp_path / "a.pth")
    with pytest.raises(SegMateError):
        Checkpoint.read(tmp_path / "a.pth")
