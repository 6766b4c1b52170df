"""Folders of cases: what counts as one, that a bad case costs only itself, what is left when work stops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_network import band_predictor
from small_ct import write_ct

from SegMateCore.batch import DONE, FAILED, SKIPPED, Choices, Outputs, run_batch, segment_case
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.finished import is_finished
from SegMateCore.input_cases import Case, case_name, find_cases, is_one_case
from SegMateCore.organs import NINE
from SegMateCore.predictor import PredictOptions
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


@pytest.fixture
def folder(tmp_path) -> Path:
    """in/a.nii.gz, in/b.nii (not a NIfTI file), in/c.nrrd."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_ct(folder / "a.nii.gz", 1)
    (folder / "b.nii").write_text("a text")
    write_ct(folder / "c.nrrd", 3)
    return folder


def run(folder: Path, out: Path, predictor=None, overwrite=False, form="nii.gz", choices=None, **how):
    choices = choices or Choices()
    predictor = predictor or band_predictor()
    work = [(case, Outputs.in_folder(out, case, form)) for case in find_cases(folder)]
    finished = (
        (lambda *_: False)
        if overwrite
        else (lambda case, outputs: is_finished(outputs, predictor.checkpoint, NINE, choices.options))
    )
    return run_batch(predictor, work, choices, finished, **how)


class TestFindCases:
    def test_files(self, folder):
        assert [case.name for case in find_cases(folder)] == ["a", "b", "c"]

    def test_one_file(self, folder):
        assert is_one_case(folder / "a.nii.gz")
        assert find_cases(folder / "a.nii.gz") == [Case("a", folder / "a.nii.gz")]

    def test_folders_with_a_ct_and_folders_with_dicom(self, folder, tmp_path):
        for name in ("p1", "p2", "empty", ".hidden"):
            (tmp_path / "cases" / name).mkdir(parents=True)
        shutil.copy(folder / "a.nii.gz", tmp_path / "cases" / "p1" / "ct.nii.gz")
        shutil.copy(folder / "a.nii.gz", tmp_path / "cases" / "p1" / "labels.nii.gz")
        (tmp_path / "cases" / "p2" / "1.2.840.113654").write_bytes(bytes(128) + b"DICM")
        (tmp_path / "cases" / "readme.txt").write_text("no case")
        cases = find_cases(tmp_path / "cases")
        assert [(case.name, case.source.name) for case in cases] == [("p1", "ct.nii.gz"), ("p2", "p2")]
        assert is_one_case(tmp_path / "cases" / "p2")

    def test_two_of_one_name_are_refused(self, folder):
        shutil.copy(folder / "a.nii.gz", folder / "A.nii.gz")
        with pytest.raises(SegMateError, match="rename one"):
            find_cases(folder)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(SegMateError, match="no CT in the folder"):
            find_cases(tmp_path)
        with pytest.raises(SegMateError, match="no file or folder"):
            find_cases(tmp_path / "missing")

    @pytest.mark.parametrize("name", ["x.y.nii.gz", "x.y.nii", "x.y.nrrd", "x.y.NII.GZ"])
    def test_names_keep_their_dots(self, name):
        assert case_name(Path(name)) == "x.y"


def test_a_broken_case_costs_only_itself(folder, tmp_path):
    results = {result.case.name: result for result in run(folder, tmp_path / "out")}
    assert {name: result.status for name, result in results.items()} == {"a": DONE, "b": FAILED, "c": DONE}
    assert "b.nii" in results["b"].error and "\n" not in results["b"].error
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert [row.organ for row in results["a"].statistics] == list(NINE.names)
    assert all(row.voxels > 0 for row in results["a"].statistics)
    found = Segmentation.read(tmp_path / "out" / "a.nii.gz")
    assert set(np.unique(found.labels)) == set(range(10))


def test_an_unexpected_error_costs_only_its_case_too(folder, tmp_path):
    predictor = band_predictor()
    run_of_backend = predictor.backends[0].run
    calls = []

    def failing(*inputs):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a driver\nfell over")
        return run_of_backend(*inputs)

    predictor.backends[0].run = failing
    results = {result.case.name: result for result in run(folder, tmp_path / "out", predictor)}
    assert results["a"].error == "RuntimeError: a driver fell over"
    assert results["c"].status == DONE


@pytest.mark.parametrize("form", ["nii.gz", "seg.nrrd", "per-organ"])
def test_finished_cases_are_skipped(folder, tmp_path, form):
    list(run(folder, tmp_path / "out", form=form))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    predictor = band_predictor()
    statuses = [result.status for result in run(folder, tmp_path / "out", predictor, form=form)]
    assert statuses == [SKIPPED, FAILED, SKIPPED]
    assert not predictor.backends[0].batches
    assert before == {path: path.stat().st_mtime_ns for path in before}
    again = [result.status for result in run(folder, tmp_path / "out", form=form, overwrite=True)]
    assert again == [DONE, FAILED, DONE]


def test_a_missing_organ_file_makes_a_case_unfinished(folder, tmp_path):
    list(run(folder, tmp_path / "out", form="per-organ"))
    (tmp_path / "out" / "a" / "liver.nii.gz").unlink()
    assert [result.status for result in run(folder, tmp_path / "out", form="per-organ")] == [
        DONE,
        FAILED,
        SKIPPED,
    ]


def test_cancelling_keeps_finished_cases_and_nothing_else(folder, tmp_path):
    done = []
    results = run(folder, tmp_path / "out", cancelled=lambda: len(done) == 2)
    with pytest.raises(Cancelled):
        for result in results:
            done.append(result)
    assert [result.case.name for result in done] == ["a", "b"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_cancelling_within_a_case_leaves_nothing(folder, tmp_path):
    seen = []

    def progress(stage, done, total):
        seen.append(stage)

    outputs = Outputs(tmp_path / "out" / "a.nii.gz", preview=tmp_path / "out" / "a.png")
    for stage in ("read", "prepare", "segment", "measure"):
        seen.clear()
        with pytest.raises(Cancelled):
            segment_case(
                band_predictor(),
                Case("a", folder / "a.nii.gz"),
                outputs,
                Choices(),
                progress,
                lambda stage=stage: stage in seen,
            )
        assert not (tmp_path / "out").exists()


def test_every_output_of_a_case(folder, tmp_path):
    out = tmp_path / "out"
    outputs = Outputs(out / "organs.seg.nrrd", False, out / "p.png", out / "probabilities")
    choices = Choices(("liver", "left_kidney"))
    result = segment_case(band_predictor(), Case("a", folder / "a.nii.gz"), outputs, choices)
    assert [row.organ for row in result.statistics] == ["liver", "left kidney"]
    organs = choices.organ_set(band_predictor())
    assert is_finished(outputs, band_predictor().checkpoint, organs, choices.options)
    assert sorted(path.name for path in out.rglob("*.nii.gz")) == ["left_kidney.nii.gz", "liver.nii.gz"]
    volume = Volume.read(folder / "a.nii.gz")
    liver = Volume.read(out / "probabilities" / "liver.nii.gz")
    assert liver.same_grid(volume) and liver.voxels.dtype == np.float32
    labels = Segmentation.read(out / "organs.seg.nrrd").labels
    assert (liver.voxels[labels == NINE.by_name("liver").label] > 0.5).all()


@pytest.mark.parametrize("form", ["nii.gz", "seg.nrrd", "per-organ"])
@pytest.mark.parametrize(
    "first, second, words",
    [
        (PredictOptions(), PredictOptions(flip_average=True), "without flip averaging, this run is with it"),
        (PredictOptions(flip_average=True), PredictOptions(), "with flip averaging, this run is without it"),
        (PredictOptions(), PredictOptions(clean_up=True), "without clean-up, this run is with it"),
        (PredictOptions(clean_up=True), PredictOptions(clean_up=False), "with clean-up, this run is without"),
    ],
)
def test_results_of_other_choices_are_neither_finished_nor_replaced(
    folder, tmp_path, form, first, second, words
):
    def statuses(options):
        results = list(run(folder, tmp_path / "out", form=form, choices=Choices(options=options)))
        return {result.case.name: (result.status, result.error) for result in results}

    statuses(first)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    again = statuses(second)
    assert again["a"][0] == again["c"][0] == FAILED
    assert words in again["a"][1] and "--overwrite" in again["a"][1]
    assert {path: path.read_bytes() for path in before} == before
    assert statuses(first)["a"][0] == SKIPPED


def test_results_of_the_int8_form_are_told_apart(folder, tmp_path):
    """It has the same weights hash, and slightly other labels."""
    def opened(precision):
        predictor = band_predictor()
        document = {**predictor.checkpoint.document, "precision": precision}
        predictor.checkpoint = Checkpoint.in_memory(document, [{"w": np.zeros(1, np.float32)}])
        predictor.backends[0].precision = precision or "fp32"
        return predictor

    list(run(folder, tmp_path / "out", opened("int8")))
    again = {kind: next(iter(run(folder, tmp_path / "out", opened(kind)))) for kind in ("int8", None)}
    assert again["int8"].status == SKIPPED and again[None].status == FAILED
    assert "made in int8, this run is in full precision" in again[None].error


def test_the_checkpoint_s_own_clean_up_is_what_none_means(folder, tmp_path):
    predictor = band_predictor(clean_up={"liver": "largest"})
    list(run(folder, tmp_path / "out", predictor))
    for clean_up, status in ((None, SKIPPED), (True, SKIPPED), (False, FAILED)):
        choices = Choices(options=PredictOptions(clean_up=clean_up))
        assert next(iter(run(folder, tmp_path / "out", predictor, choices=choices))).status == status


def test_one_organ_s_file_of_another_origin_is_noticed(folder, tmp_path):
    list(run(folder, tmp_path / "out", form="per-organ"))
    mask = tmp_path / "out" / "a" / "trachea.nii.gz"
    Volume.read(mask).write(mask)
    result = next(iter(run(folder, tmp_path / "out", form="per-organ")))
    assert result.status == FAILED
    assert "trachea.nii.gz exists and does not say how it was made" in result.error
