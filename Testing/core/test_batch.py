"""Folders of cases: what counts as one, that a bad case costs only itself, what is left when work stops."""

from __future__ import annotations

import shutil
import threading
import weakref
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fake_network import band_predictor
from small_ct import write_ct

from SegMateCore.batch import DONE, FAILED, SKIPPED, Choices, Outputs, run_batch, segment_case
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.cli import main
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
        else lambda case, outputs: is_finished(
            outputs, predictor.checkpoint, NINE, choices.options, ct=case.source
        )
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

    def test_a_tree(self, folder, tmp_path):
        cts = "anna/2020/thin.nii.gz anna/2020/thick.nrrd anna/2021/ct.nii.gz bert/ct.nii.gz"
        for name in cts.split():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_bytes(b"")
        for name in ("anna/2021/labels.nii.gz", "anna/2020/.hidden.nii.gz", "anna/2020/thin.seg.nrrd"):
            (tmp_path / "tree" / name).write_bytes(b"")
        dicom = tmp_path / "tree" / "carla" / "a study" / "series 3"
        dicom.mkdir(parents=True)
        (dicom / "1.dcm").write_bytes(b"")
        (tmp_path / "tree" / "results").mkdir()
        (tmp_path / "tree" / "results" / "old.nii.gz").write_bytes(b"")
        (tmp_path / "tree" / "anna" / "back").symlink_to(tmp_path / "tree", target_is_directory=True)
        cases = find_cases(tmp_path / "tree", leave_out=[tmp_path / "tree" / "results"])
        assert [case.name for case in cases] == [
            "anna/2020/thick", "anna/2020/thin", "anna/2021", "bert", "carla/a study/series 3",
        ]  # fmt: skip
        assert cases[-1].source == dicom

    def test_labels_of_nnunet_are_no_cts(self, folder, tmp_path):
        names = "imagesTr/a_0000.nii.gz labelsTr/a.nii.gz imagesTs/b_0000.nii.gz labelsTs/b.nii.gz"
        for name in names.split():
            (tmp_path / "Dataset001_A" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "Dataset001_A" / name).write_bytes(b"")
        found = [case.name for case in find_cases(tmp_path / "Dataset001_A")]
        assert found == ["imagesTr/a_0000", "imagesTs/b_0000"]

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
    results = {result.case.name: result for result in run(folder, tmp_path / "out", predictor, at_once=1)}
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
    results = run(folder, tmp_path / "out", cancelled=lambda: len(done) == 2, at_once=1)
    with pytest.raises(Cancelled):
        for result in results:
            done.append(result)
    assert [result.case.name for result in done] == ["a", "b"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_cases_at_once_change_no_result(folder, tmp_path):
    for seed in range(4, 9):
        write_ct(folder / f"d{seed}.nii.gz", seed)
    found = {n: list(run(folder, tmp_path / str(n), at_once=n)) for n in (1, 3)}
    for results in found.values():
        assert [result.case.name for result in results] == ["a", "b", "c", "d4", "d5", "d6", "d7", "d8"]
    assert [(r.status, r.statistics) for r in found[1]] == [(r.status, r.statistics) for r in found[3]]
    for result in found[1]:
        if result.status == DONE:
            name = f"{result.case.name}.nii.gz"
            first, second = (Segmentation.read(tmp_path / str(n) / name).labels for n in (1, 3))
            assert np.array_equal(first, second) and first.any()


def test_one_case_is_at_the_network_while_others_are_read(folder, tmp_path, monkeypatch):
    """The network waits until the next case has been read: one after the other, that would never be."""
    from SegMateCore import batch

    for seed in range(4, 9):
        write_ct(folder / f"d{seed}.nii.gz", seed)
    predictor, real = band_predictor(), Volume.read
    run_of_backend = predictor.backends[0].run
    read, in_memory, most, at_network = [], weakref.WeakSet(), [], []
    changed = threading.Condition()

    def reading(path, *options):
        volume = real(path, *options)
        with changed:
            read.append(path)
            in_memory.add(volume)
            most.append(len(in_memory))
            changed.notify_all()
        return volume

    def running(*inputs):
        at_network.append(threading.get_ident())
        first = len(at_network) == 1
        if first:
            with changed:
                assert changed.wait_for(lambda: len(read) > 1, timeout=30)
        found = run_of_backend(*inputs)
        assert len(set(at_network)) == 1, "two cases are at the network"
        return found

    monkeypatch.setattr(batch.Volume, "read", reading)
    predictor.backends[0].run = running
    for result in run(folder, tmp_path / "out", predictor, at_once=2, begun=lambda case: at_network.clear()):
        assert result.status == (FAILED if result.case.name == "b" else DONE), result.error
    assert max(most) == 2 and len(read) == 7


def test_stopped_by_its_caller_nothing_goes_on(folder, tmp_path):
    for seed in range(4, 9):
        write_ct(folder / f"d{seed}.nii.gz", seed)
    results = run(folder, tmp_path / "out")
    assert next(results).case.name == "a"
    results.close()
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "a.nii.gz" in left and len(left) < 7
    assert not [name for name in left if name.startswith(".")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("segmate-lane")]


def test_results_are_given_of_what_was_finished_when_it_is_cancelled(folder, tmp_path):
    for seed in range(4, 9):
        write_ct(folder / f"d{seed}.nii.gz", seed)
    done = []
    with pytest.raises(Cancelled):
        for result in run(folder, tmp_path / "out", cancelled=lambda: len(done) >= 2):
            done.append(result)
    out = tmp_path / "out"
    written = sorted(path.name.removesuffix(".nii.gz") for path in out.iterdir()) if out.exists() else []
    assert written == sorted(result.case.name for result in done if result.status == DONE)


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


def test_results_of_the_other_geometry_are_not_taken_for_finished(folder, tmp_path, bands_onnx, capsys):
    image = nibabel.load(folder / "a.nii.gz")
    image.set_qform(image.affine @ np.diag([1, 1, 2, 1]), code=1)
    (tmp_path / "two").mkdir()
    nibabel.save(image, tmp_path / "two" / "a.nii.gz")
    words = ["predict", tmp_path / "two", "-o", tmp_path / "out", "--checkpoint", bands_onnx, "--affine"]
    found = [main([*map(str, words), affine]) for affine in ("sform", "sform", "qform")]
    assert found == [0, 0, 1]
    assert "a.nii.gz was made with the sform of its CT, this run is with the qform" in capsys.readouterr().err


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


def test_a_preview_does_not_show_what_the_file_is_called(tmp_path, bands_onnx):
    """Names of files may be those of patients, and pictures are passed on."""
    from PIL import Image

    pictures = []
    for name in ("case_1", "DOE_JOHN"):
        write_ct(tmp_path / f"{name}.nii.gz", 1)
        words = ["predict", tmp_path / f"{name}.nii.gz", "-o", tmp_path / "o.nii.gz", "--preview",
                 tmp_path / "p.png", "--checkpoint", bands_onnx, "--quiet"]  # fmt: skip
        assert main([str(word) for word in words]) == 0
        with Image.open(tmp_path / "p.png") as picture:
            assert "DOE" not in str(picture.text)
            pictures.append(picture.tobytes())
    assert pictures[0] == pictures[1]


def test_a_ct_that_was_replaced_by_another_of_its_name_is_noticed(folder, tmp_path):
    list(run(folder, tmp_path / "out"))
    write_ct(folder / "c.nrrd", 3)
    assert [result.status for result in run(folder, tmp_path / "out")] == [SKIPPED, FAILED, SKIPPED]
    write_ct(folder / "c.nrrd", 5)
    found = {result.case.name: result for result in run(folder, tmp_path / "out")}
    assert (found["a"].status, found["c"].status) == (SKIPPED, FAILED)
    assert "was made of another file: the CT of this name had" in found["c"].error
    again = {result.case.name: result.status for result in run(folder, tmp_path / "out", overwrite=True)}
    assert again["c"] == DONE
