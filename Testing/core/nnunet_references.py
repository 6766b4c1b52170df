"""What nnU-Net found with tiny models of its own, and how our logits and labels are put beside it.

Testing/core/nnunet_reference holds, for each case: CASE.zip, the model folders as nnU-Net's trainer wrote
them; CASE.npz, logits at some positions of the network's grid and the labels; cases.json and the inputs. All
of it comes from synthetic CTs; Testing/measure/nnunet_reference.py makes it.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from SegMateCore.backends import open_backend
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.nnunet_folder import read_nnunet_folders
from SegMateCore.patch_stream import PatchStream
from SegMateCore.volume import Volume

FOLDER = Path(__file__).parent / "nnunet_reference"


@dataclass(frozen=True)
class Case:
    """One entry of cases.json. folders: of the models, in order; margin: voxels of the input set to zero."""

    name: str
    folders: tuple[str, ...]
    source: str
    margin: int
    orientation: str

    def unpack(self, target: Path) -> Path:
        """The model folders and the input "phantom.nii.gz" as files below `target`."""
        with zipfile.ZipFile(FOLDER / f"{self.name}.zip") as archive:
            archive.extractall(target / "models")
        image = nibabel.load(FOLDER / f"{self.source}.nii.gz")
        voxels = np.asarray(image.dataobj)
        if self.margin:
            inner = tuple(slice(self.margin, -self.margin) for _ in range(3))
            kept, voxels = voxels[inner], np.zeros_like(voxels)
            voxels[inner] = kept
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), target / "phantom.nii.gz")
        return target

    def checkpoint(self, models: Path) -> Checkpoint:
        """The folders below `models` as one checkpoint, with every class as an organ."""
        checkpoint = read_nnunet_folders([models / name for name in self.folders], self.orientation)
        return checkpoint.with_organ_set("all") if "all" in checkpoint.organ_set_names else checkpoint


def read_cases(folder: Path = FOLDER) -> list[Case]:
    entries = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    return [Case(**{**entry, "folders": tuple(entry["folders"])}) for entry in entries]


def logits_of(checkpoint: Checkpoint, part: int, volume: Volume) -> np.ndarray:
    """Logits (C, d0, d1, d2) float32 of one part on its network's grid."""
    entry = checkpoint.parts[part]
    canonical = volume.canonical()
    grid = entry.preprocessing.grid(canonical)
    working = entry.preprocessing.working(canonical, grid)
    box = tuple(slice(0, count) for count in working.shape)
    backend = open_backend(checkpoint, part, "torch", "cpu", "fp32", None)
    stream = PatchStream(working, entry.patches, backend, box, 1, _no_warning, None, lambda done: None)
    try:
        return np.stack([logits for _, logits in stream.planes(set(range(working.shape[0])))], axis=1)
    finally:
        stream.close()


def reference_labels(checkpoint: Checkpoint, case: Case, models: Path, found: list[np.ndarray]) -> np.ndarray:
    """nnU-Net's label maps, one for each folder, as one of the checkpoint's organs; later ones overwrite."""
    result = np.zeros(found[0].shape, np.uint8)
    for part, folder, labels in zip(checkpoint.parts, case.folders, found):
        dataset = json.loads((models / folder / "dataset.json").read_text())
        # Which label stands for a channel: its number, or with regions what they are painted with.
        values = dataset.get("regions_class_order") or range(len(part.classes))
        for organ in checkpoint.organs:
            channels = part.grouping.get(organ.name, [])
            result[np.isin(labels, [values[channel] for channel in channels])] = organ.label
    return result


def dice_per_organ(checkpoint: Checkpoint, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Dice of every organ that either found; the others are left out."""
    dice = {}
    for organ in checkpoint.organs:
        first, second = ours == organ.label, theirs == organ.label
        if first.any() or second.any():
            dice[organ.name] = float(2 * (first & second).sum() / (first.sum() + second.sum()))
    return dice


def _no_warning(text: str) -> None:
    raise AssertionError(text)
