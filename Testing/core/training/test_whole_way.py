"""The whole way on synthetic data: every published layout -> prepare -> train -> fine-tune -> predict.
predict.

One network learns from five Stores at once, each with other organs annotated; then it is fine-tuned on
SegTHOR's layout with the heart as a new organ. Coarse and short: what counts is that every step takes the
one before.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("blosc2")

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.cli import main
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.training.callbacks import read_metrics
from SegMateCore.volume import Volume

SPACING_MM = 8
# layout of `segmate phantom`, kind of `segmate prepare`, organs of the nine that are annotated there
LAYOUTS = (
    ("totalsegmentator", "totalsegmentator", 9),
    ("totalsegmentator1", "totalsegmentator", 8),
    ("segthor", "segthor", 3),
    ("amos22", "amos22", 5),
    ("nnunet", "nnunet", 9),
    ("cases", "folder", 9),
)
QUICK = (
    "--device", "cpu", "--set", "optimisation.batch=4", "--set", "optimisation.precision=fp32",
    "--set", "sampling.rows=64", "--set", "sampling.columns=64", "--set", "sampling.workers=0",
    "--set", "optimisation.steps_per_epoch=4", "--set", "optimisation.epochs=1",
    "--set", "validation.cases=1",
)  # fmt: skip
NEW = (
    "--set", "model=segmate_resnet10t", "--set", "model_options.encoder=test_resnet",
    "--set", "pretrained=false", "--set", f"preprocessing.spacing_mm={[SPACING_MM] * 3}",
)  # fmt: skip


def run(*words) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("stores"), {}
    for number, (layout, kind, _) in enumerate(LAYOUTS):
        source, store = root / f"{layout}_source", root / layout
        run("phantom", source, "--layout", layout, "--count", 2, "--seed", 2 * number, "--quiet",
            "--spacing", SPACING_MM)  # fmt: skip
        run("prepare", kind, source, store, "--spacing", SPACING_MM, "--split", "ratio", "--ratio", 1, 1, 0,
            "--workers", 0, "--quiet")  # fmt: skip
        made[layout] = store
    run("prepare", "segthor", root / "segthor_source", root / "heart", "--spacing", SPACING_MM,
        "--organs", "esophagus,heart,trachea,aorta", "--split", "ratio", "--ratio", 1, 1, 0, "--workers", 0,
        "--quiet")  # fmt: skip
    made["heart"] = root / "heart"
    return made


def test_from_every_published_layout_to_a_prediction(stores, tmp_path):
    joint = [path for layout, path in stores.items() if layout != "heart"]
    run("train", *joint, "-o", tmp_path / "joint", *QUICK, *NEW)
    trained = Checkpoint.read(tmp_path / "joint/last.safetensors")
    counts = [len(row["annotated"]) for row in trained.document["training"]["cases"]]
    assert sorted(counts) == sorted(count for _, _, count in LAYOUTS)
    assert trained.organs == NINE

    run("finetune", stores["heart"], "--from", tmp_path / "joint/last.safetensors", "-o", tmp_path / "heart",
        *QUICK)  # fmt: skip
    tuned = Checkpoint.read(tmp_path / "heart/last.safetensors")
    assert tuned.organs.names == (*NINE.names, "heart")
    scored = [line for line in read_metrics(tmp_path / "heart") if line["kind"] == "epoch"][-1]
    assert set(scored["dice"]) <= {"esophagus", "heart", "trachea", "aorta"}

    ct = next((stores["heart"].parent / "segthor_source").rglob("Patient_01.nii.gz"))
    run("predict", ct, "-o", tmp_path / "found.nii.gz", "--checkpoint", tmp_path / "heart/last.safetensors",
        "--device", "cpu", "--quiet")  # fmt: skip
    found = Segmentation.read(tmp_path / "found.nii.gz")
    assert found.labels.shape == Volume.read(ct).shape and "heart" in found.organs.names
