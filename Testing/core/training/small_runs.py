"""Small runs for tests: blocks in air whose HU tell the organ, a short recipe, one thread."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.cases import TrainingCase, tissue_of_ct
from SegMateCore.data.datasets.folder import find as find_cases
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.splits import SplitRule
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.training.callbacks import read_metrics
from SegMateCore.training.data import ValidationCase, from_cases
from SegMateCore.training.recipe_file import read_recipe
from SegMateCore.volume import Volume
from SegMateCore.weights_file import WeightsFile

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
HU = {1: -800, 2: -750, 3: 40, 4: 30, 5: 110, 6: 160, 7: 170, 8: 220, 9: -1000}


def blocks(seed=0, organs=(1, 2, 5, 8)):
    """(hu int16, labels uint8) (K, J, I): one block per organ in a block of fat, with noise."""
    rng = np.random.default_rng(seed)
    hu = np.full((16, 64, 64), -1000, np.int16)
    hu[:, 8:56, 4:60] = -90
    labels = np.zeros(hu.shape, np.uint8)
    for number, label in enumerate(organs):
        row, column = 12 + 18 * (number % 2) + rng.integers(4), 8 + 12 * number + rng.integers(3)
        labels[3:13, row : row + 14, column : column + 9] = label
    for label, value in HU.items():
        hu[labels == label] = value
    return (hu + rng.normal(0, 8, hu.shape)).astype(np.int16), labels


def case(seed=0, annotated=None, organs=(1, 2, 5, 8)):
    """A TrainingCase of blocks; annotated: labels, None for all."""
    hu, labels = blocks(seed, organs)
    known = tuple(annotated is None or organ.label in annotated for organ in NINE)
    group = "complete" if all(known) else "partial"
    facts = {"annotated": [organ.name for organ, is_known in zip(NINE, known) if is_known]}
    return TrainingCase(f"blocks_{seed}", group, hu, tissue_of_ct(hu, labels), labels, known, facts)


def validation(seed=100):
    """A ValidationCase of blocks."""
    hu, labels = blocks(seed)

    def load():
        return Volume(hu, AFFINE), Segmentation(labels, AFFINE, NINE)

    return ValidationCase(f"seen_{seed}", ("left lung", "right lung", "liver", "aorta"), load)


def data(count=2, validated=0, annotated=None):
    cases = [case(seed, annotated) for seed in range(count)]
    return from_cases(cases, [validation(100 + number) for number in range(validated)])


def recipe(*overrides, **sections):
    """A small, quick recipe; overrides as on the command line."""
    base = [
        "optimisation.batch=4", "optimisation.log_every=2", "optimisation.precision=fp32",
        "optimisation.channels_last=false", "optimisation.epochs=4", "optimisation.steps_per_epoch=3",
        "sampling.rows=64", "sampling.columns=64", "sampling.chunk_slices=4", "sampling.pool_chunks=6",
        "model_options={encoder=\"test_resnet\", widths=[32, 24, 16, 16, 8]}",
    ]  # fmt: skip
    return dataclasses.replace(read_recipe("demo", [*base, *overrides]), **sections)


def dropout_recipe(*overrides):
    """A SegMate with dropout, and a resume point at every step: for runs that are interrupted."""
    return recipe(
        "model=segmate_resnet10t", 'model_options={encoder="test_resnet", dropout=0.2}',
        "optimisation.save_minutes=0", *overrides,
    )  # fmt: skip


def same_end(folder, other):
    """Whether two runs ended alike to the last bit: weights, average, optimiser, scores, patience."""
    first, second = _resume_tensors(folder), _resume_tensors(other)
    assert first.keys() == second.keys() and len(first) > 100
    assert all(np.array_equal(first[key], second[key]) for key in first)
    for name in ("last.safetensors", "best.safetensors"):
        one, two = Checkpoint.read(folder / name), Checkpoint.read(other / name)
        assert one.weights_sha256 == two.weights_sha256
        assert one.document["metrics"] == two.document["metrics"]
    kept = ("kind", "step", "loss", "terms", "batch_dice", "rate", "score", "best", "dice")
    lines = [
        [{key: line[key] for key in kept if key in line} for line in read_metrics(run)]
        for run in (folder, other)
    ]
    assert lines[0] == lines[1] and len(lines[0]) > 4


def _resume_tensors(folder):
    weights = WeightsFile(folder / "last.resume")
    return dict(weights.items(weights.keys))


def write_cases(folder, seeds, annotated=None, hu_shift=0):
    """Case folders of blocks; annotated: labels, None for all. Labels of other organs are left out."""
    for seed in seeds:
        hu, labels = blocks(seed)
        known = [organ for organ in NINE if annotated is None or organ.label in annotated]
        labels = np.where(np.isin(labels, [organ.label for organ in known]), labels, 0).astype(np.uint8)
        place = folder / f"case_{seed:03d}"
        place.mkdir(parents=True)
        Volume(np.where(hu > -500, hu + hu_shift, hu).astype(np.int16), AFFINE).write(place / "ct.nii.gz")
        Volume(labels, AFFINE).write(place / "labels.nii.gz")
        (place / "organs.json").write_text(json.dumps({"annotated": [organ.key for organ in known]}))
    return folder


def make_store(folder, seeds, annotated=None, organs=NINE, spacing_mm=(3.0, 3.0, 3.0)):
    """A Store of blocks, two thirds to train on, one third to validate on."""
    source = write_cases(folder / "source", seeds, annotated)
    rule = SplitRule(shares=(2, 1, 0))
    prepare(
        dataclasses.replace(find_cases(source, organs), split=rule),
        folder / "store",
        PrepareOptions(spacing_mm=spacing_mm),
    )
    return folder / "store"
