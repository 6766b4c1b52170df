"""Which predictions of an earlier run are taken again: those of the same CT, network and options alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_network import BandBackend, band_checkpoint, band_predictor
from small_ct import write_ct

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.case_scores import Scoring
from SegMateCore.evaluation.evaluate import Evaluation, evaluate
from SegMateCore.evaluation.finding import ReferenceChoices, find_references
from SegMateCore.evaluation.predicting import Predicting
from SegMateCore.evaluation.result_files import Results
from SegMateCore.evaluation.slice_probabilities import read_highest
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


def write_case(place, seed: int = 0, slices: int | None = None) -> None:
    """A CT of bands with the bands as reference, in its lowest `slices` alone."""
    ct = write_ct(place / "ct.nii.gz", seed)
    labels = np.zeros(ct.shape, np.uint8)
    for channel in range(9):
        labels[:slices, 4 * channel : 4 * channel + 4, 2:] = channel + 1
    ct.with_voxels(labels).write(place / "labels.nii.gz")
    (place / "organs.json").write_text(json.dumps({"annotated": list(NINE.names)}))


@pytest.fixture
def cases(tmp_path):
    write_case(tmp_path / "cases/a", slices=3)
    return tmp_path / "cases"


def scored(cases, out, predictor, resample: bool = False, **choices) -> Results:
    source, scoring = Predicting(predictor, out, **choices), Scoring(resample=resample)
    return evaluate(Evaluation(find_references(cases, ReferenceChoices()), source, scoring, out))


def runs(predictor: Predictor) -> int:
    return len(predictor.backends[0].batches)


def changed(**changes) -> Predictor:
    """The stand-in of a checkpoint with the same weights and another document."""
    plain = band_checkpoint()
    document = {**plain.document, **changes}
    return Predictor(Checkpoint.in_memory(document, [{"w": np.zeros(1, np.float32)}]), [BandBackend()])


def test_the_same_again_needs_no_network(cases, tmp_path):
    predictor = band_predictor()
    first = scored(cases, tmp_path / "out", predictor, slices=True)
    count = runs(predictor)
    again = scored(cases, tmp_path / "out", predictor, slices=True)
    assert runs(predictor) == count > 0 and again.cases == first.cases


def test_an_int8_form_keeps_the_hash_of_the_weights_and_is_another_network(cases, tmp_path):
    scored(cases, tmp_path / "out", band_predictor())
    lowered = changed(precision="int8")
    assert lowered.checkpoint.weights_sha256 == band_checkpoint().weights_sha256
    with pytest.raises(SegMateError, match="another evaluation"):
        scored(cases, tmp_path / "out", lowered)
    (tmp_path / "out/run.json").unlink()
    scored(cases, tmp_path / "out", lowered)
    assert runs(lowered) == 1


def test_another_preprocessing_or_threshold_with_the_same_weights_is_another_network(cases, tmp_path):
    scored(cases, tmp_path / "out", band_predictor())
    (part,) = band_checkpoint().document["parts"]
    other = changed(parts=[{**part, "threshold": 0.9}])
    scored(cases, tmp_path / "out", other)
    assert runs(other) == 1


def test_another_clean_up_rule_is_another_result(cases, tmp_path):
    scored(cases, tmp_path / "out", changed(clean_up={"liver": "largest"}))
    other = changed(clean_up={"liver": "largest", "aorta": "largest"})
    scored(cases, tmp_path / "out", other)
    assert runs(other) == 1


def test_an_exchanged_ct_is_segmented_anew(cases, tmp_path):
    predictor = band_predictor()
    before = scored(cases, tmp_path / "out", predictor).summary["all organs"]["dice"]["mean"]
    path = cases / "a/ct.nii.gz"
    ct = Volume.read(path)
    ct.with_voxels(np.full_like(ct.voxels, -1000)).write(path)
    results = scored(cases, tmp_path / "out", predictor, options=PredictOptions(force=True))
    assert before > 0.6 and results.summary["all organs"]["dice"]["mean"] == 0


def test_probabilities_of_other_options_are_not_taken(cases, tmp_path):
    """Labels made anew without probabilities leave those of before behind."""
    predictor, flipped = band_predictor(), PredictOptions(flip_average=True)
    out = tmp_path / "out"
    scored(cases, out, predictor, slices=True)
    scored(cases, out, predictor, options=flipped)
    count = runs(predictor)
    scored(cases, out, predictor, slices=True, options=flipped)
    assert runs(predictor) > count
    other = tmp_path / "other"
    scored(cases, other, predictor, slices=True, options=flipped)
    assert read_highest(out / "predictions/a.slices.json") == read_highest(
        other / "predictions/a.slices.json"
    )


def test_another_patient_is_another_row(cases, tmp_path):
    predictor = band_predictor()
    assert scored(cases, tmp_path / "out", predictor).cases[0]["patient"] == "a"
    path = cases / "a/organs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "patient": "p7"}))
    assert scored(cases, tmp_path / "out", predictor).cases[0]["patient"] == "p7"


def test_the_ct_s_slices_are_not_those_of_a_reference_on_another_grid(tmp_path):
    """Of as many slices, so that nothing but the grid tells."""
    write_case(tmp_path / "truth/a", slices=3)
    labels = Segmentation.read(tmp_path / "truth/a/labels.nii.gz")
    (tmp_path / "truth/a/organs.json").unlink()
    moved = np.array(labels.affine)
    moved[2, 3] += 3
    replace(labels, affine=moved).write(tmp_path / "truth/a/labels.nii.gz")
    results = scored(tmp_path / "truth", tmp_path / "out", band_predictor(), resample=True, slices=True)
    assert results.cases[0]["resampled"]
    assert results.summary["organs"]["liver"]["slices"]["auc"] is None
    assert any("no AUC" in note and "another grid" in note for note in results.head["notes"])


def test_masks_of_organs_that_only_the_checkpoint_knows(cases, tmp_path):
    organs = OrganSet(tuple(replace(o, name="thymoma") if o.name == "trachea" else o for o in NINE))
    document = {"annotated": ["thymoma", "liver"], "organs": organs.to_list()}
    (cases / "a/organs.json").write_text(json.dumps(document))
    predictor = changed(organs=organs.to_list())
    references = find_references(cases, ReferenceChoices(organs=organs))
    source = Predicting(predictor, tmp_path / "out", multilabel=True)
    for _ in range(2):
        evaluation = Evaluation(references, source, Scoring(multilabel=True), tmp_path / "out")
        assert set(evaluate(evaluation).summary["organs"]) == {"liver", "thymoma"}
    assert runs(predictor) == 1


def test_a_sheared_ct_keeps_its_labels_and_has_no_auc(cases, tmp_path):
    for name in ("ct.nii.gz", "labels.nii.gz"):
        volume = Volume.read(cases / "a" / name)
        sheared = np.array(volume.affine)
        sheared[1, 2] += 0.4 * sheared[2, 2]
        Volume(volume.voxels, sheared).write(cases / "a" / name)
    predictor, counts = band_predictor(), []
    for _ in range(2):
        results = scored(cases, tmp_path / "out", predictor, slices=True)
        counts.append(runs(predictor))
        assert not results.failed
    assert counts[0] == counts[1]
    assert results.summary["organs"]["liver"]["slices"]["auc"] is None
    assert any("no AUC" in note and "sheared" in note for note in results.head["notes"])
