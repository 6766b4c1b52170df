"""A run of 3D networks: its memory, what happens when that is short, cancelling, options and refusals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from fake_network import band_predictor
from patch_references import GROUPING, volume
from small_patches import tiny_checkpoint, tiny_networks, tiny_part  # noqa: F401

from SegMateCore.backends import OutOfMemory
from SegMateCore.backends.torch_patches import TorchPatches
from SegMateCore.batch import Outputs
from SegMateCore.commands.predict_opening import announcing
from SegMateCore.console import ProgressLine
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.finished import is_finished
from SegMateCore.patch_run import PatchRun
from SegMateCore.predictor import PredictOptions, Predictor

pytestmark = pytest.mark.usefixtures("tiny_networks")


class Cramped:
    """A backend whose memory holds fewer patches than asked for."""

    def __init__(self, inside: TorchPatches, capacity: int, device: str = "cuda:0"):
        self.inside, self.capacity, self.device = inside, capacity, device
        self.name, self.version, self.precision = inside.name, inside.version, inside.precision
        self.calls: list[int] = []

    def run(self, patches, mirror_axes, cancelled):
        self.calls.append(len(patches))
        if len(patches) > self.capacity:
            raise OutOfMemory("too many")
        return self.inside.run(patches, mirror_axes, cancelled)

    def logits(self, values):
        return self.inside.logits(values)

    def on_cpu(self):
        return Cramped(self.inside, 1000, "cpu")


@pytest.mark.parametrize("capacity, words", [(2, "going on with 2 patches"), (0, "going on on the CPU")])
def test_out_of_memory_halves_the_batch_then_takes_the_cpu(capacity, words):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (5, 5, 5)))
    ct = volume()
    plain = Predictor.from_checkpoint(checkpoint, "cpu")
    cramped = Predictor(checkpoint, [Cramped(plain.backends[0], capacity)])
    found = cramped.predict(ct, options=PredictOptions(patches_at_once=4))
    assert np.array_equal(found.labels, plain.predict(ct).labels)
    assert any(words in warning for warning in found.provenance["warnings"])
    assert found.provenance["device"] == ("cpu" if capacity == 0 else "cuda:0")


def test_out_of_memory_on_the_cpu_is_an_error():
    checkpoint = tiny_checkpoint(tiny_part(GROUPING))
    backend = Cramped(TorchPatches.open(checkpoint, 0, "cpu", "fp32", None), 0, "cpu")
    with pytest.raises(SegMateError, match="single patch"):
        Predictor(checkpoint, [backend]).predict(volume())


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_cancel_stops_between_two_patches(device):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (5, 5, 5)))
    backend = Cramped(TorchPatches.open(checkpoint, 0, "cpu", "fp32", None), 9, device)
    with pytest.raises(Cancelled):
        Predictor(checkpoint, [backend]).predict(volume(), cancelled=lambda: len(backend.calls) >= 2)
    assert len(backend.calls) in (2, 3)


def test_cancel_stops_between_two_mirrorings_and_folds():
    part = tiny_part(GROUPING, folds=2, patches={"mirror_axes": [0, 1]})
    backend = TorchPatches.open(tiny_checkpoint(part), 0, "cpu", "fp32", None)
    asked = []
    patches = np.zeros((1, 1, 8, 8, 8), np.float32)
    backend.run(patches, (0, 1), lambda: asked.append(1))
    assert len(asked) == 8
    with pytest.raises(Cancelled):
        backend.run(patches, (0, 1), lambda: asked.append(1) or len(asked) > 10)
    assert len(asked) == 11


def test_options_change_overlap_and_mirroring():
    part = tiny_part(GROUPING, (5, 5, 5), patches={"mirror_axes": [0, 2]})
    checkpoint = tiny_checkpoint(part)
    predictor, ct = Predictor.from_checkpoint(checkpoint, "cpu"), volume()

    def with_patches(**changes) -> np.ndarray:
        changed = tiny_checkpoint({**part, "patches": {**part["patches"], **changes}})
        return Predictor.from_checkpoint(changed, "cpu").predict(ct).labels

    found = predictor.predict(ct, options=PredictOptions(overlap=0.25, mirror=False))
    assert np.array_equal(found.labels, with_patches(overlap=0.25, mirror_axes=[]))
    assert found.provenance["overlap"] == 0.25 and found.provenance["mirror"] is False
    found = predictor.predict(ct, options=PredictOptions(mirror=True))
    assert np.array_equal(found.labels, with_patches())
    unmirrored = Predictor.from_checkpoint(tiny_checkpoint(tiny_part(GROUPING)), "cpu")
    for options, words in (
        (PredictOptions(mirror=True), "names no axes"), (PredictOptions(flip_average=True), "flip averaging"),
        (PredictOptions(overlap=1.0), "overlap"), (PredictOptions(patches_at_once=0), "patches_at_once"),
    ):
        with pytest.raises(SegMateError, match=words):
            unmirrored.predict(ct, options=options)


def test_what_3d_networks_cannot_be_used_for(tmp_path):
    """Export, going on and a grid for students are of slices; nor are results of other patches taken over."""
    pytest.importorskip("onnx")
    from SegMateCore.export import export_onnx
    from SegMateCore.training.fine_tuning import given_by, grid_of

    checkpoint = tiny_checkpoint(tiny_part(GROUPING))
    for work in (lambda c: export_onnx(c, tmp_path / "x.onnx"), given_by, grid_of):
        with pytest.raises(SegMateError, match="is for 2.5D networks, .* holds the 3D network 'tiny_3d'"):
            work(checkpoint)
    with pytest.raises(SegMateError, match="choices of 3D networks"):
        band_predictor().predict(volume(), options=PredictOptions(overlap=0.25))
    organs, path = checkpoint.organs, tmp_path / "labels.nii.gz"
    Predictor.from_checkpoint(checkpoint, "cpu").predict(volume()).write(path)
    outputs = Outputs(path)
    assert is_finished(outputs, checkpoint, organs, PredictOptions())
    with pytest.raises(SegMateError, match="overlap of the checkpoint, this run is with 0.25"):
        is_finished(outputs, checkpoint, organs, PredictOptions(overlap=0.25))


def test_progress_counts_patches():
    line = ProgressLine(quiet=True)
    announcing(line, Predictor.from_checkpoint(tiny_checkpoint(tiny_part(GROUPING)), "cpu"), True)
    assert line.pieces == "patches"
    line = ProgressLine(quiet=True)
    announcing(line, band_predictor(), True)
    assert line.pieces == "slices"


def test_half_precision_changes_little():
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (6, 6, 6)))
    ct = volume()
    exact = Predictor.from_checkpoint(checkpoint, "cpu").predict(ct)
    half = Predictor.from_checkpoint(checkpoint, "cpu", precision="bf16").predict(ct)
    assert half.provenance["precision"] == "bf16"
    assert 0 < (half.labels != exact.labels).mean() < 0.05
    with pytest.raises(SegMateError, match="fp16 is not for the CPU"):
        Predictor.from_checkpoint(checkpoint, "cpu", precision="fp16")


def test_what_does_not_fit_is_refused():
    part = tiny_part(GROUPING)
    part["classes"] = [*part["classes"], "one more"]
    with pytest.raises(SegMateError, match="expected .1, 5, 8, 8, 8.: one logit for each of the 5 classes"):
        Predictor.from_checkpoint(tiny_checkpoint(part), "cpu")
    checkpoint = tiny_checkpoint(tiny_part(GROUPING))
    with pytest.raises(SegMateError, match="probabilities is for 2.5D networks.*tiny_3d"):
        next(Predictor.from_checkpoint(checkpoint, "cpu").probability_slices(volume()))


@pytest.mark.parametrize("classes", [4, 200])
def test_memory_is_that_of_one_slab(classes):
    """200 classes on 160 x 32 x 32 voxels are 131 MB of logits; a slab of features is a hundredth of that."""
    part = tiny_part({"liver": [1], "spleen": [2]}, (8, 16, 16), count=classes)
    checkpoint = tiny_checkpoint(part)
    backend = TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)
    ct = volume((160, 32, 32))
    Predictor(checkpoint, [backend]).predict(volume())  # imports are not to be counted
    run = PatchRun(checkpoint, [backend], ct.canonical(), PredictOptions(), print, None)
    tracemalloc.start()
    try:
        labels = np.zeros(ct.shape, np.uint8)
        run.label(labels, range(160), (), None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    slab = 3 * 8 * 32 * 32 * 4  # features of a patch's depth
    plane = classes * 32 * 32 * 4  # logits of one finished plane
    working_array = ct.voxels.size * 4
    assert peak < 1.2 * working_array + labels.nbytes + 3 * (slab + plane)
    assert peak < 0.03 * classes * working_array or classes == 4
