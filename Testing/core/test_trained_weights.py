"""What must hold on trained weights: the bundled demonstration checkpoint on a synthetic CT and on real ones.

"Same labels" means: per-organ Dice of at least 0.999, with every organ present in both.
"""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore import Predictor, Segmentation, Volume
from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.data.phantom import make_phantom
from SegMateCore.organs import NINE
from SegMateCore.predictor import PredictOptions

SEED = 1002  # far from the seeds of the training


def dice(a: np.ndarray, b: np.ndarray, label: int) -> float:
    a, b = a == label, b == label
    return 2 * int((a & b).sum()) / max(1, int(a.sum()) + int(b.sum()))


def assert_same_labels(a: np.ndarray, b: np.ndarray) -> None:
    for organ in NINE:
        assert (a == organ.label).any() and (b == organ.label).any(), f"{organ.name} is missing"
        assert dice(a, b, organ.label) >= 0.999, organ.name


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(SEED, spacing_mm=(2.4, 2.4, 4.0), with_pathology=False)


@pytest.fixture(scope="module")
def demo() -> Predictor:
    return Predictor.from_checkpoint("demo")


@pytest.fixture(scope="module")
def labels(demo, phantom) -> np.ndarray:
    return demo.predict(phantom.volume).labels


def test_every_organ_of_a_synthetic_ct_is_found(labels, phantom):
    found = {organ.name: dice(labels, phantom.labels, organ.label) for organ in NINE}
    assert min(found.values()) > 0.6 and np.mean(list(found.values())) > 0.8, found


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_same_labels_for_any_chunk(demo, phantom, labels, chunk):
    assert_same_labels(demo.predict(phantom.volume, options=PredictOptions(chunk=chunk)).labels, labels)


def test_same_labels_for_one_thread(phantom, labels):
    single = Predictor.from_checkpoint("demo", threads=1)
    assert_same_labels(single.predict(phantom.volume).labels, labels)


def test_same_labels_from_torch_and_onnx_runtime(phantom, labels):
    pytest.importorskip("torch")
    by_torch = Predictor.from_checkpoint("demo", backend="torch")
    assert by_torch.backends[0].name == "torch"
    assert by_torch.checkpoint.weights_sha256 == Predictor.from_checkpoint("demo").checkpoint.weights_sha256
    assert_same_labels(by_torch.predict(phantom.volume).labels, labels)


@pytest.mark.parametrize("order, flips", [((2, 0, 1), (1,)), ((0, 1, 2), (0, 2)), ((1, 2, 0), ())])
def test_equal_labels_for_any_storage_order(demo, phantom, labels, order, flips):
    columns = [2 - axis for axis in order][::-1]
    voxels = phantom.volume.voxels.transpose(order)
    affine = phantom.volume.affine[:, [*columns, 3]].copy()
    for axis in flips:
        affine[:3, 3] += (voxels.shape[axis] - 1) * affine[:3, 2 - axis]
        affine[:3, 2 - axis] *= -1
    found = demo.predict(Volume(np.flip(voxels, flips).copy(), affine)).labels
    assert (np.flip(found, flips).transpose(np.argsort(order)) == labels).all()


def test_the_sides_are_the_patients(demo):
    mirrored = make_phantom(SEED, spacing_mm=(3.0, 3.0, 5.0), with_pathology=False, mirrored=True)
    segmentation = demo.predict(mirrored.volume)
    affine = mirrored.volume.affine
    for left, right in (("left lung", "right lung"), ("left kidney", "right kidney")):
        centres = []
        for name in (left, right):
            index = np.argwhere(segmentation.labels == NINE.by_name(name).label).mean(0)[::-1]
            centres.append((affine[:3, :3] @ index + affine[:3, 3])[0])
        assert centres[0] < centres[1], f"{left} must lie on the patient's left"
    assert any("liver lies on the patient's left" in text for text in segmentation.provenance["warnings"])


def test_lungs_and_liver_of_a_real_ct(demo, shared):
    case = shared / "data/lidc_0001"
    found = demo.predict(Volume.read(case / "ct_3mm.nii.gz")).labels
    truth = Segmentation.read(case / "labels_3mm.nii.gz").labels
    assert dice(found, truth, 1) > 0.93 and dice(found, truth, 2) > 0.93 and dice(found, truth, 5) > 0.85


def test_the_bundled_files_are_small_and_carry_one_document():
    onnx, safetensors = bundled_checkpoints()["demo"], bundled_checkpoints("torch")["demo"]
    assert onnx.suffix == ".onnx" and onnx.stat().st_size <= 15_000_000
    assert safetensors.suffix == ".safetensors" and safetensors.stat().st_size <= 15_000_000
