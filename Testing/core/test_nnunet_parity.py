"""Model folders of nnU-Net, predicted here, beside what nnU-Net itself found with them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from nnunet_references import FOLDER, dice_per_organ, logits_of, read_cases, reference_labels

from SegMateCore.predictor import Predictor
from SegMateCore.volume import Volume

CASES = {case.name: case for case in read_cases()}
# Logits of float32 that were added up in another order.
TOLERANCE = 1e-4
LOWEST_DICE = 0.999


@pytest.fixture(scope="module", params=CASES)
def opened(request, tmp_path_factory):
    """(case, folder with its files, checkpoint, volume, arrays of the reference)"""
    case = CASES[request.param]
    folder = case.unpack(tmp_path_factory.mktemp(case.name))
    with np.load(FOLDER / f"{case.name}.npz") as arrays:
        reference = dict(arrays)
    return case, folder, case.checkpoint(folder / "models"), Volume.read(folder / "phantom.nii.gz"), reference


def test_logits_are_those_of_nnunet(opened):
    case, _, checkpoint, volume, reference = opened
    for part in range(len(case.folders)):
        ours = logits_of(checkpoint, part, volume)
        assert ours.shape == tuple(reference[f"shape_{part}"])
        sampled = ours.reshape(len(ours), -1)[:, reference[f"positions_{part}"]]
        theirs = reference[f"logits_{part}"]
        # A reference that says nothing could not fail.
        assert theirs.shape[1] >= 500 and np.ptp(theirs) > 2
        assert np.abs(sampled - theirs).max() < TOLERANCE


def test_labels_are_those_of_nnunet(opened):
    case, folder, checkpoint, volume, reference = opened
    predicted = Predictor.from_checkpoint(checkpoint, "cpu").predict(volume).labels

    def theirs(run: str) -> np.ndarray:
        found = [reference[f"{run}_{part}"] for part in range(len(case.folders))]
        return reference_labels(checkpoint, case, folder / "models", found)

    exact, rounded = theirs("labels"), theirs("labels_unmodified")
    assert np.count_nonzero(exact) > 1000, "a reference in which next to nothing is found could not fail"
    dice = dice_per_organ(checkpoint, predicted, exact)
    assert min(dice.values()) >= LOWEST_DICE, dice
    # As it is, nnU-Net rounds: of an organ of some hundred voxels, one or two are then others.
    dice, its_own = dice_per_organ(checkpoint, predicted, rounded), dice_per_organ(checkpoint, exact, rounded)
    assert all(dice[organ] >= min(LOWEST_DICE, its_own[organ]) for organ in dice), (dice, its_own)
