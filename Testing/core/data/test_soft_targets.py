"""What a 3D network says of a case, on disk: whole or not at all, read as it was written."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("blosc2")

from SegMateCore.data.soft_targets import FACTS_FILE, LOGITS_FILE, read_targets, write_targets
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.organs import NINE

SHAPE = (7, 30, 41)
ORGANS = NINE.only([0, 4, 7])


def random_logits(seed: int = 0) -> np.ndarray:
    """(3, K, J, I) int8, of which one organ is in some slices alone and one nowhere."""
    logits = np.random.default_rng(seed).integers(-127, 128, (3, *SHAPE)).astype(np.int8)
    logits[1, 2:5] = -127
    logits[2] = -np.abs(logits[2])
    return logits


def written(place, key="made of this", logits=None):
    logits = random_logits() if logits is None else logits

    def fill(organs):
        for organ, values in zip(organs, logits, strict=True):
            organ[...] = values

    write_targets(place, key, ORGANS, SHAPE, fill)
    return logits


def test_slices_come_back_as_they_were(tmp_path):
    logits = written(tmp_path / "case")
    targets = read_targets(tmp_path / "case", "made of this", ORGANS, SHAPE)
    for k in range(SHAPE[0]):
        assert np.array_equal(targets.slice(k), logits[:, k])
    assert targets.voxels == tuple((logits > 0).sum(axis=(1, 2, 3)))
    assert np.array_equal(targets.presence, (logits > 0).any(axis=(2, 3)).T)
    assert targets.presence[:, 1].tolist() == [True, True, False, False, False, True, True]
    assert sorted(path.name for path in (tmp_path / "case").iterdir()) == [LOGITS_FILE, FACTS_FILE]


@pytest.mark.parametrize(
    ("key", "shape"), [("made of that", SHAPE), ("made of this", (7, 41, 30)), ("made of this", (8, 30, 41))]
)
def test_targets_of_something_else_are_none(tmp_path, key, shape):
    written(tmp_path / "case")
    assert read_targets(tmp_path / "case", key, ORGANS, shape) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"key": "made of this"}', b"\xff\xfe"])
def test_facts_that_are_not_whole_are_none(tmp_path, content):
    assert read_targets(tmp_path / "case", "made of this", ORGANS, SHAPE) is None
    written(tmp_path / "case")
    (tmp_path / "case" / FACTS_FILE).write_bytes(content)
    assert read_targets(tmp_path / "case", "made of this", ORGANS, SHAPE) is None


def test_a_fill_that_stops_leaves_nothing(tmp_path):
    def stop(organs):
        organs[0][...] = 1
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        write_targets(tmp_path / "case", "key", ORGANS, SHAPE, stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", [15_000, 600, 1])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, lacking):
    """Before the arrays are there, and when the compressed file, here of noise, needs more than they."""
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(-127, 128, (3, *SHAPE)).astype(np.int8)
    written(tmp_path / "whole", logits=noise)
    size = (tmp_path / "whole" / LOGITS_FILE).stat().st_size
    assert noise.nbytes < size - 1
    limit = size - lacking
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(SegMateError, match="cannot write"):
            written(tmp_path / "case", logits=noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_file_that_breaks_later_says_how_to_mend_it(tmp_path):
    written(tmp_path / "case")
    targets = read_targets(tmp_path / "case", "made of this", ORGANS, SHAPE)
    (tmp_path / "case" / LOGITS_FILE).unlink()
    with pytest.raises(SegMateError, match="remove .*case.*--resume"):
        targets.slice(0)
