"""Bad input to `segmate evaluate`: exit code 2, one line that says what was given and what to do."""

from __future__ import annotations

import numpy as np
import pytest
from label_folders import write_labels, write_pairs
from small_datasets import LPS, SHAPE, block_labels, small_volume, write_case_folders

from SegMateCore.cli import main


def refused(capsys, *words) -> str:
    """The one line on stderr of a command line that is refused, but for the notice on demonstrations."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--jobs", "0", "--quiet"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("***")]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def pairs(tmp_path):
    """Folders truth and found with one case a."""
    return write_pairs(tmp_path, ["a"])


def test_unmatched_names(tmp_path, capsys):
    truth, found = write_pairs(tmp_path, ["a", "b", "c"])
    (found / "b.nii.gz").rename(found / "B2.nii.gz")
    text = refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")
    assert "references without a prediction: b" in text and "B2" in text and "--partial" in text
    assert not (tmp_path / "out/results.json").exists()
    words = ["evaluate", truth, "--predictions", found, "-o", tmp_path / "out", "--partial", "--jobs", "0"]
    assert main(list(map(str, words))) == 1
    assert "b not scored: no prediction" in capsys.readouterr().err


def test_no_pair_at_all(pairs, tmp_path, capsys):
    truth, found = pairs
    (found / "a.nii.gz").rename(found / "z.nii.gz")
    text = refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")
    assert "no prediction has the name of a reference" in text and " a;" in text and " z:" in text


def test_empty_folders(pairs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    text = refused(capsys, pairs[0], "--predictions", tmp_path / "empty", "-o", tmp_path / "out")
    assert "holds no label maps" in text
    text = refused(capsys, tmp_path / "empty", "--predictions", pairs[1], "-o", tmp_path / "out")
    assert "holds no reference" in text
    assert "no file or folder" in refused(capsys, tmp_path / "gone", "--predictions", pairs[1])


def test_different_grids_name_both(pairs, tmp_path, capsys):
    truth, found = pairs
    moved = LPS.copy()
    moved[0, 3] += 5
    write_labels(found / "a.nii.gz", block_labels(), moved)
    text = refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")
    assert str(found / "a.nii.gz") in text and str(truth / "a.nii.gz") in text
    assert text.count("30 x 24 x 10 voxels of 2 x 2 x 3 mm") == 2 and "--resample" in text
    write_labels(found / "a.nii.gz", block_labels()[1:])
    assert "30 x 24 x 9 voxels" in refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")


@pytest.mark.parametrize("which", [0, 1])
def test_labels_outside_the_table(pairs, tmp_path, capsys, which):
    labels = block_labels()
    labels[0, 0, 0] = 42
    path = pairs[which] / "a.nii.gz"
    small_volume().with_voxels(labels).write(path)
    text = refused(capsys, pairs[0], "--predictions", pairs[1], "-o", tmp_path / "out")
    assert str(path) in text and "[42] stand for no organ" in text


def test_nan_and_fractions(pairs, tmp_path, capsys):
    truth, found = pairs
    values = block_labels().astype(np.float32)
    values[0, 0, 0] = np.nan
    _write_float(found / "a.nii.gz", values)
    text = refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")
    assert str(found / "a.nii.gz") in text and "NaN or infinite" in text
    values[0, 0, 0] = 0.37
    _write_float(found / "a.nii.gz", values)
    text = refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")
    assert "not labels, expected whole numbers" in text


def test_masks_that_are_none(pairs, tmp_path, capsys):
    truth, _ = pairs
    words = (truth, "--predictions", tmp_path / "masks", "-o", tmp_path / "out", "--multilabel")
    write_labels(tmp_path / "masks/a/labels.nii.gz", block_labels())
    assert "--multilabel takes folders" in refused(capsys, *words)
    (tmp_path / "masks/a/labels.nii.gz").unlink()
    _write_float(tmp_path / "masks/a/liver.nii.gz", np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE))
    assert "expected a mask of 0 and one other" in refused(capsys, *words)
    values = np.zeros(SHAPE)
    values[0, 0, 0] = np.nan
    _write_float(tmp_path / "masks/a/liver.nii.gz", values)
    assert "NaN or infinite" in refused(capsys, *words)
    small_volume().with_voxels(np.zeros(SHAPE, np.uint8)).write(tmp_path / "masks/a/liver.nii.gz")
    write_labels(tmp_path / "masks/a/aorta.nii.gz", (block_labels()[1:] == 8))
    text = refused(capsys, *words)
    assert "another grid" in text and "aorta.nii.gz" in text


def test_nothing_in_common_to_score(pairs, tmp_path, capsys):
    truth, found = pairs
    words = (truth, "--predictions", found, "-o", tmp_path / "out")
    assert "nothing to score" in refused(capsys, *words, "--organs", "heart")
    assert "unknown organ 'gizzard'" in refused(capsys, *words, "--organs", "gizzard")
    assert "unknown organ 'gizzard'" in refused(capsys, *words, "--annotated", "gizzard")


def test_truncated_file(pairs, tmp_path, capsys):
    truth, found = pairs
    path = found / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    text = refused(capsys, truth, "--predictions", found, "-o", tmp_path / "out")
    assert str(path) in text and "damaged" in text


def test_wrong_command_lines(pairs, tmp_path, capsys):
    truth, found = pairs
    assert "no references given" in refused(capsys)
    assert "either --predictions FOLDER or --checkpoint" in refused(capsys, truth)
    assert "either --predictions" in refused(capsys, truth, "--predictions", found, "--checkpoint", "demo")
    assert "--auc and --flip-average need" in refused(capsys, truth, "--predictions", found, "--auc")
    assert "without a division" in refused(capsys, truth, "--predictions", found, "--split", "test")
    assert "no finished evaluation" in refused(capsys, "--compare", truth, found)
    assert "--compare takes two" in refused(capsys, truth, "--compare", truth, found)
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(capsys, truth, "--predictions", found, "-o", tmp_path / "file")
    write_case_folders(tmp_path / "cases", 1)
    text = refused(capsys, tmp_path / "cases", "--predictions", found, "--split", "val")
    assert "no published split" in text


def test_choices_that_would_be_passed_over(pairs, tmp_path, capsys):
    write_case_folders(tmp_path / "cases", 1)
    words = (tmp_path / "cases", "--predictions", pairs[1], "-o", tmp_path / "out")
    assert "--annotated goes with plain label maps" in refused(capsys, *words, "--annotated", "liver")


def test_masks_of_one_case_against_several(tmp_path, capsys):
    truth, _ = write_pairs(tmp_path, ["a", "b"])
    for name in ("liver", "aorta"):
        write_labels(tmp_path / f"masks/{name}.nii.gz", block_labels() == 5)
    words = (truth, "--predictions", tmp_path / "masks", "-o", tmp_path / "out")
    assert "the folder of one case's masks" in refused(capsys, *words)


def test_a_checkpoint_needs_cts(pairs, bands_onnx, tmp_path, capsys):
    text = refused(capsys, pairs[0], "--checkpoint", bands_onnx, "-o", tmp_path / "out")
    assert "a has no CT beside its labels" in text


def test_onnx_files_that_are_no_checkpoints(bands_onnx, tmp_path, capsys):
    import onnx

    write_case_folders(tmp_path / "cases", 1)
    words = (tmp_path / "cases", "-o", tmp_path / "out", "--checkpoint")
    (tmp_path / "broken.onnx").write_bytes(bands_onnx.read_bytes()[:200])
    assert "broken.onnx" in refused(capsys, *words, tmp_path / "broken.onnx")
    model = onnx.load(bands_onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    assert "plain.onnx" in refused(capsys, *words, tmp_path / "plain.onnx")
    assert not (tmp_path / "out").exists()


def _write_float(path, values: np.ndarray) -> None:
    """A float32 NIfTI, NaN and all, which Volume would refuse."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32).transpose(2, 1, 0), LPS), path)
