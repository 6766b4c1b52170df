"""The whole chain of a public 3D model by the command line: fetch or import, convert, predict, distil."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("blosc2")

from file_server import Behaviour, FileServer  # noqa: E402
from small_bundle import write_bundle  # noqa: E402
from small_nnunet import MODEL, TOTAL, plans, write_model  # noqa: E402
from small_runs import make_store, write_cases  # noqa: E402

from SegMateCore import download as download_module  # noqa: E402
from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.cli import main  # noqa: E402
from SegMateCore.data.slice_arrays import read_slices  # noqa: E402
from SegMateCore.data.soft_targets import LOGITS_FILE  # noqa: E402
from SegMateCore.data.store import Store  # noqa: E402
from SegMateCore.evaluation.metrics import dice  # noqa: E402
from SegMateCore.model_manifest import RESOURCES, Licence, ManifestEntry, Source  # noqa: E402
from SegMateCore.segmentation import Segmentation  # noqa: E402
from SegMateCore.training.callbacks import read_metrics  # noqa: E402
from SegMateCore.volume import Volume  # noqa: E402

REFERENCES = Path(__file__).parents[1] / "nnunet_reference"
SMALL = [
    "--device", "cpu",
    *(word for text in (
        "optimisation.batch=4", "optimisation.steps_per_epoch=2", "optimisation.epochs=1",
        "optimisation.precision=fp32", "optimisation.log_every=1", "optimisation.channels_last=false",
        "sampling.rows=64", "sampling.columns=64", "sampling.workers=1", "validation.previews=0",
        "model_options.encoder=test_resnet",
    ) for word in ("--set", text)),
]  # fmt: skip


def segmate(*words) -> None:
    assert main([str(word) for word in words]) == 0


def targets_of(run: Path, store: Path) -> dict[str, np.ndarray]:
    """Case -> what the teacher says of it, int8 (C, K, J, I), read as arrays are read from a Store."""
    found = {}
    for case in Store.open(store).split("train"):
        (place,) = (run / "teacher").glob(f"{case.name}-*")
        facts = json.loads((place / "targets.json").read_text())
        depth, rows, columns = facts["shape"]
        count = len(facts["slices"])
        planes = read_slices(place / LOGITS_FILE, 0, depth, (depth, count * rows, columns))
        found[case.name] = planes.reshape(depth, count, rows, columns).swapaxes(0, 1)
    return found


def test_a_folder_of_nnunet(tmp_path, capsys):
    """Imported, converted, used and distilled; its lobes are one lung, its patches another grid's."""
    folder = write_model(tmp_path / TOTAL / MODEL, plans(spacing=[4.0, 3.5, 3.0], patch_size=[16, 32, 32]))
    model, run, found = (tmp_path / name for name in ("total.safetensors", "run", "found.nii.gz"))
    store = make_store(tmp_path, range(3), (1, 2))
    ct = write_cases(tmp_path / "new", [50]) / "case_050/ct.nii.gz"
    segmate("convert", folder.parent, model)
    segmate("predict", ct, "-o", found, "--checkpoint", model, "--organ-set", "nine", "--device", "cpu")
    capsys.readouterr()
    words = ["distill", store, "--teacher", model, "--organ-set", "nine", "-o", run, *SMALL]
    segmate(*words)
    shown = capsys.readouterr().err
    assert "the teacher segments case_000, 1 of 2" in shown and "1 of 2" in shown
    student, teacher = Checkpoint.read(run / "last.safetensors"), Checkpoint.read(model)
    record = student.document["training"]["teacher"]
    assert record["weights_sha256"] == teacher.weights_sha256 and record["organ_set"] == "nine"
    assert student.organs.names[:3] == teacher.with_organ_set("nine").organs.names
    assert student.parts[0].preprocessing.spacing_mm == (3.0, 3.0, 3.0)
    assert all(entry in student.document["licences"] for entry in teacher.document["licences"])
    assert {"teacher", "bce"} <= set(read_metrics(run)[0]["terms"])
    segmate("predict", ct, "-o", found, "--checkpoint", run / "last.safetensors", "--device", "cpu")
    assert Segmentation.read(found).labels.shape == (16, 64, 64)
    # Neither a second run in that folder nor one with another choice of organs takes what is there.
    assert main([str(word) for word in words]) == 2
    assert "holds a run already" in capsys.readouterr().err
    words[words.index("nine")] = "all"
    assert main([str(word) for word in (*words, "--resume")]) == 2
    assert "another" in capsys.readouterr().err


def test_a_bundle_of_monai_that_lacks_the_cord(tmp_path, capsys):
    """The Store knows the cord, the teacher the other eight, of which the Store has two."""
    bundle, model = write_bundle(tmp_path / "bundle"), tmp_path / "monai.safetensors"
    store, run = make_store(tmp_path, range(3), (1, 3)), tmp_path / "run"
    segmate("convert", bundle, model, "--low-resolution")
    segmate("distill", store, "--teacher", model, "-o", run, *SMALL)
    student, teacher = Checkpoint.read(run / "last.safetensors"), Checkpoint.read(model)
    assert len(teacher.organs) == 8 and "spinal cord" not in teacher.organs.names
    assert student.organs.names == (*teacher.organs.names, "spinal cord")
    for planes in targets_of(run, store).values():
        assert len(planes) == 8
    assert {row["annotated"][0] for row in student.document["training"]["cases"]} == {"left lung"}
    assert "7 organs" not in capsys.readouterr().err


@pytest.fixture
def public(monkeypatch, tmp_path):
    """A list of public models whose only one lies on a server on this machine; its archive and behaviour."""
    archive = REFERENCES / "plain.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    monkeypatch.setattr(download_module, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path / "models"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    content = archive.read_bytes()
    digits = hashlib.sha256(content).hexdigest()
    behaviour = Behaviour(content, cuts=[len(content) // 3])
    with FileServer(**{"plain.zip": behaviour}) as server:
        source = Source(server.url("plain.zip"), True, "Dataset901_Phantom", None, None, ("sha256", digits))
        licence = Licence("Apache-2.0", RESOURCES / "licences" / "Apache-2.0.txt", "https://example.org")
        entry = ManifestEntry(
            "phantom_6mm", "Small", "U-Net", ("left lung", "liver", "aorta"), 3, 6.0, licence,
            "https://example.org", ("Doe 2026",), (source,), "nnunet",
            ("Dataset901_Phantom/nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres",),
            {"orientation": "LPS", "configuration": "3d_fullres"},
        )
        monkeypatch.setattr("SegMateCore.model_manifest.read_manifest", lambda: {"phantom_6mm": entry})
        yield behaviour


def write_references(folder: Path) -> tuple[Volume, np.ndarray]:
    """Two case folders of the CT that nnU-Net itself has segmented, in which its left lung alone is
    annotated; the CT and all of nnU-Net's labels.
    """
    ct = Volume.read(REFERENCES / "even.nii.gz")
    with np.load(REFERENCES / "plain.npz") as arrays:
        theirs = arrays["labels_0"]
    lung = np.isin(theirs, [1, 2]).astype(np.uint8)
    for number in range(2):
        place = folder / f"case_{number}"
        place.mkdir(parents=True)
        ct.with_voxels(ct.voxels + np.int16(number)).write(place / "ct.nii.gz")
        ct.with_voxels(lung).write(place / "labels.nii.gz")
        (place / "organs.json").write_text(json.dumps({"annotated": ["left_lung"]}))
    return ct, theirs


def test_a_downloaded_model(public, tmp_path):
    """From a server that cuts the connection; what the student is to learn is what nnU-Net itself found."""
    ct, theirs = write_references(tmp_path / "cases")
    store, run, half = tmp_path / "store", tmp_path / "run", tmp_path / "half.safetensors"
    segmate("download", "phantom_6mm", "--accept-licence", "--quiet")
    assert len(public.requests) == 2
    found = tmp_path / "found.nii.gz"
    network = ["--checkpoint", "phantom_6mm", "--organ-set", "nine", "--device", "cpu", "--quiet"]
    segmate("predict", tmp_path / "cases/case_0/ct.nii.gz", "-o", found, *network)
    segmate("convert", "phantom_6mm", half, "--half")
    spacing = ["--spacing", "6.5", "6.5", "8", "--split", "ratio", "--ratio", "1", "1", "0"]
    segmate("prepare", "folder", tmp_path / "cases", store, *spacing, "--quiet")
    segmate("distill", store, "--teacher", "phantom_6mm", "--organ-set", "nine", "-o", run, *SMALL)
    student = Checkpoint.read(run / "last.safetensors")
    names = ("left lung", "liver", "aorta")
    assert student.organs.names[:3] == names
    canonical = ct.canonical_view(theirs)
    (planes,) = targets_of(run, store).values()
    # Lobes are put together before the way back to the CT's grid, nnU-Net's labels after it.
    for organ, labels in zip(planes, [(1, 2), (3,)]):
        reference = np.isin(canonical, labels)
        assert reference.sum() > 200 and dice(organ > 0, reference) > 0.99
    predicted = Segmentation.read(found)
    assert dice(predicted.mask("liver"), theirs == 3) > 0.99
    network[1] = run / "last.safetensors"
    segmate("predict", tmp_path / "cases/case_0/ct.nii.gz", "-o", found, *network[:2], *network[4:])
    assert Segmentation.read(found).organs.names == student.organs.names
    # The file with half the precision is another teacher.
    words = ["distill", store, "--teacher", half, "--organ-set", "nine", "-o", run, *SMALL, "--resume"]
    assert main([str(word) for word in words]) == 2
