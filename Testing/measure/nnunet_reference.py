"""Tiny genuine nnU-Net models, and what nnU-Net itself finds with them: the reference of the parity check.

    python Testing/measure/nnunet_reference.py WORK --phantoms FOLDER [--ct CT] [--write-references]

Runs in an environment of its own (docs/public_models.md says how to make it). FOLDER holds what `segmate
phantom` wrote: even/ and thick/ to learn from, even_input/ and thick_input/. Every network is built, and its
checkpoint written, by nnU-Net's own trainer; only the loop that fits it for some seconds is ours. Then
nnUNetPredictor runs twice: as it is, and with float32 accumulators (see float32_accumulators). Into WORK go,
of each case, the model folders and all logits and labels; what is small of it, made from phantoms alone, goes
to Testing/core/nnunet_reference with --write-references. What WORK has already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
from nnunet_cases import CASES, Case, Network
from nnunet_models import Fitting, checkpoint_path, fit

# isort: split
# After nnunet_models, which sets what nnU-Net reads from the environment.
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

REFERENCES = Path(__file__).parents[1] / "core" / "nnunet_reference"
STEPS = 600
SAMPLED = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--phantoms", type=Path, required=True)
    parser.add_argument("--ct", type=Path, help="a real CT; nothing made from it gets into the references")
    parser.add_argument("--only", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--steps", type=int, default=STEPS, help="of the first network; others take half")
    parser.add_argument("--write-references", action="store_true")
    given = parser.parse_args()
    first = given.work / CASES[0].name / "models"
    chosen = [case for case in CASES if case.name in given.only]
    for case in chosen:
        work, phantoms = given.work / case.name, given.phantoms / f"{case.source}_input"
        for number, network in enumerate(case.networks):
            for fold in range(network.folds):
                # Fitting goes faster from a network that knows some organs already.
                start = None if case is CASES[0] else checkpoint_path(CASES[0].networks[0], 0, first)
                fitting = Fitting(
                    given.phantoms, phantoms.name, given.steps // (2 if start else 1), start,
                    seed=1000 * CASES.index(case) + 10 * number + fold,
                )  # fmt: skip
                fit(network, fold, work / "models", fitting)
        run_case(case, work, coarse_values(nibabel.load(next(phantoms.rglob("ct.nii.gz")))), "phantom")
        if given.write_references:
            write_reference(case, work)
    if given.write_references:
        write_cases()
    for case in chosen if given.ct else []:
        run_case(case, given.work / case.name, coarse_grid(nibabel.load(given.ct)), "ct")


@contextmanager
def float32_accumulators() -> Iterator[None]:
    """nnU-Net sums weighted logits in float16, with weights of float16: here both are float32, nothing else.

    Its function asks torch for `torch.half` when it makes the two sums, and compute_gaussian for its default
    dtype.
    """
    weights = partial(predict_from_raw_data.compute_gaussian, dtype=torch.float32)
    with mock.patch.object(torch, "half", torch.float32):
        with mock.patch.object(predict_from_raw_data, "compute_gaussian", weights):
            yield


def coarse_values(phantom: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The phantom in steps of 16 HU, air without noise: a third of the size in the repository."""
    voxels = np.asarray(phantom.dataobj)
    voxels = np.where(voxels < -900, -1008, voxels // 16 * 16).astype(np.int16)
    return nibabel.Nifti1Image(voxels, phantom.affine)


def coarse_grid(ct: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Every n-th voxel of the CT, so that they are about 2 mm apart."""
    steps = [max(1, round(2 / float(size))) for size in ct.header.get_zooms()[:3]]
    every = tuple(slice(None, None, step) for step in steps)
    affine = ct.affine @ np.diag([*steps, 1])
    return nibabel.Nifti1Image(np.asarray(ct.dataobj)[every].astype(np.int16), affine)


def run_case(case: Case, work: Path, image: nibabel.Nifti1Image, name: str) -> None:
    """WORK/NAME.nii.gz, and NAME_PART.npz of each network: logits before resampling back, labels."""
    given = work / f"{name}.nii.gz"
    voxels = case.with_margin(np.asarray(image.dataobj))
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), given)
    for number, network in enumerate(case.networks):
        target = work / f"{name}_{number}.npz"
        if target.exists():
            continue
        started = time.time()
        folder = work / "models" / network.folder
        half_logits, half_labels = predicted(folder, network, given)
        with float32_accumulators():
            logits, labels = predicted(folder, network, given)
        if (logits.dtype, half_logits.dtype) != (np.float32, np.float16):
            raise SystemExit(f"accumulators are {logits.dtype} and {half_logits.dtype}: nnU-Net has changed")
        apart = np.abs(logits - half_logits.astype(np.float32)).max()
        np.savez(target, logits=logits, labels=labels, labels_unmodified=half_labels)
        found = dict(zip(*map(np.ndarray.tolist, np.unique(labels, return_counts=True))))
        print(
            f"{case.name} {name} {network.dataset}: {logits.shape} found {found}, float16 {apart:.3f} apart,"
            f" {np.count_nonzero(labels != half_labels)} labels, {time.time() - started:.0f} s", flush=True,
        )  # fmt: skip


def predicted(folder: Path, network: Network, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits (C, d0, d1, d2) on the network's grid, labels (K, J, I) uint8 as in the file."""
    choices = {"perform_everything_on_device": False, "allow_tqdm": False}
    predictor = nnUNetPredictor(device=torch.device("cpu"), **choices)
    predictor.initialize_from_trained_model_folder(str(folder), tuple(range(network.folds)))
    reader = PlansManager(str(folder / "plans.json")).image_reader_writer_class()
    image, properties = reader.read_images([str(source)])
    kept = []
    run = predictor.predict_logits_from_preprocessed_data
    predictor.predict_logits_from_preprocessed_data = lambda data: kept.append(run(data)) or kept[0]
    labels = predictor.predict_single_npy_array(image, properties)
    written = folder / "labels.nii.gz"
    reader.write_seg(labels, str(written), properties)
    labels = np.asarray(nibabel.load(written).dataobj).T.astype(np.uint8)
    written.unlink()
    return kept[0].numpy(), labels


def write_reference(case: Case, work: Path) -> None:
    """CASE.zip with the model folders, CASE.npz with sampled logits and the labels, the input."""
    REFERENCES.mkdir(exist_ok=True)
    if not case.margin:
        shutil.copy(work / "phantom.nii.gz", REFERENCES / f"{case.source}.nii.gz")
    target = REFERENCES / f"{case.name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted((work / "models").rglob("*.*")):
            if path.name in ("plans.json", "dataset.json", "checkpoint_final.pth"):
                archive.write(path, path.relative_to(work / "models"))
    arrays = {}
    rng = np.random.default_rng(0)
    for number in range(len(case.networks)):
        with np.load(work / f"phantom_{number}.npz") as found:
            logits = found["logits"]
            where = np.sort(sampled_positions(logits, rng))
            arrays[f"shape_{number}"] = np.array(logits.shape)
            arrays[f"positions_{number}"] = where.astype(np.int32)
            arrays[f"logits_{number}"] = logits.reshape(len(logits), -1)[:, where]
            arrays[f"labels_{number}"] = found["labels"]
            arrays[f"labels_unmodified_{number}"] = found["labels_unmodified"]
    np.savez_compressed(REFERENCES / f"{case.name}.npz", **arrays)


def write_cases() -> None:
    """cases.json: what the check must know of each case."""
    entries = [
        {
            "name": case.name,
            "folders": [network.folder for network in case.networks],
            "source": case.source,
            "margin": case.margin,
            "orientation": case.orientation,
        }
        for case in CASES
    ]
    (REFERENCES / "cases.json").write_text(json.dumps(entries, indent=1) + "\n")


def sampled_positions(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flat positions on the network's grid: half anywhere, half where not the first channel is highest."""
    count = logits[0].size
    anywhere = rng.choice(count, SAMPLED // 2, replace=False)
    organs = np.nonzero(logits.reshape(len(logits), -1).argmax(0))[0]
    inside = rng.choice(organs, min(SAMPLED // 2, len(organs)), replace=False) if len(organs) else organs
    return np.unique(np.concatenate([anywhere, inside]))


if __name__ == "__main__":
    main()
