"""Training cases: a CT (or a synthetic anatomy) with labels and the list of organs that are really annotated.

Takes case folders (`ct.nii.gz`, `labels.nii.gz`, `organs.json` with "annotated") and gives TrainingCase
values on the network's working grid, canonical RAS. Label 0 means background only for the annotated organs;
of all others nothing is known. The tissue map of a real CT is its labels and, elsewhere, plain HU rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from scipy import ndimage

from SegMateCore.data.tissue import TISSUE_INDEX
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.resampling import resample_labels
from SegMateCore.volume import Volume

GROUPS = ("complete", "partial", "pseudo", "phantom")

# HU limits between air, fat, soft tissue, contrast-filled blood and bone on a CT whose organs are not
# labelled.
AIR_BELOW_HU = -300
FAT_BELOW_HU = -20
BLOOD_ABOVE_HU = 110
BONE_ABOVE_HU = 260
VESSEL_ABOVE_HU = -500
NEARLY_EMPTY_BELOW_HU = -900


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """One case on the working grid (K, J, I), i to the right, j to the front, k to the head.

    group: one of GROUPS; hu: int16, None for a phantom (its tissue map is painted anew each time); tissue:
    uint8 numbers of data.tissue.TISSUES; labels: uint8, 0 or channel + 1; annotated: one bool per organ;
    source: JSON-able facts for the training record.
    """

    name: str
    group: str
    hu: np.ndarray | None
    tissue: np.ndarray
    labels: np.ndarray
    annotated: tuple[bool, ...]
    source: dict = field(default_factory=dict)

    def __post_init__(self):
        shapes = {array.shape for array in (self.hu, self.tissue, self.labels) if array is not None}
        if len(shapes) != 1:
            raise SegMateError(f"case {self.name}: image, tissue map and labels have shapes {sorted(shapes)}")
        if self.group not in GROUPS:
            raise SegMateError(f"case {self.name}: group {self.group!r}, expected one of {', '.join(GROUPS)}")

    @property
    def is_complete(self) -> bool:
        return all(self.annotated)


def read_case(folder: str | PathLike, preprocessing: Preprocessing, organs: OrganSet = NINE) -> TrainingCase:
    """The annotated case in `folder`, group "complete" or "partial".

    Raises SegMateError where a file is missing or broken, or where CT and labels lie on different grids.
    """
    folder = Path(folder)
    hu, volume, grid = read_working_hu(folder, preprocessing)
    annotated = _annotated(folder / "organs.json", organs)
    reference = Volume.read(folder / "labels.nii.gz").canonical()
    if not reference.same_grid(volume):
        raise SegMateError(
            f"{folder}: ct.nii.gz and labels.nii.gz lie on different grids, expected the same one"
        )
    wanted = tuple(organ.label for organ, known in zip(organs, annotated) if known)
    by_label = resample_labels(reference, grid, wanted)
    channel_of_label = np.zeros(256, np.uint8)
    channel_of_label[list(organs.labels)] = np.arange(1, len(organs) + 1)
    labels = channel_of_label[by_label]
    group = "complete" if all(annotated) else "partial"
    facts = {"annotated": [o.name for o, known in zip(organs, annotated) if known], **_source_facts(folder)}
    return TrainingCase(folder.name, group, hu, tissue_of_ct(hu, labels), labels, annotated, facts)


def read_working_hu(folder: Path, preprocessing: Preprocessing):
    """(hu int16 (K, J, I) on the working grid, canonical Volume, WorkingGrid) of `folder`/ct.nii.gz."""
    path = folder / "ct.nii.gz"
    if not path.is_file():
        raise SegMateError(f"{folder}: no ct.nii.gz there, expected a case folder with ct.nii.gz")
    volume = Volume.read(path).canonical()
    grid = preprocessing.working_grid(volume)
    hu = np.rint(np.clip(preprocessing.working_hu(volume, grid), -1024, 3071)).astype(np.int16)
    return hu, volume, grid


def tissue_of_ct(hu: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tissue map, uint8 (K, J, I), of a real CT: its labels, and HU rules wherever there is no label."""
    number = TISSUE_INDEX
    tissue = np.full(hu.shape, number["soft tissue"], np.uint8)
    tissue[hu < FAT_BELOW_HU] = number["fat"]
    tissue[hu > BLOOD_ABOVE_HU] = number["venous blood"]
    # Bone is bright over some distance; the thin bright rim of a contrast-filled vessel is not bone.
    tissue[(hu > BONE_ABOVE_HU) | (ndimage.median_filter(hu, 3) > BONE_ABOVE_HU)] = number["cortical bone"]
    air = hu < AIR_BELOW_HU
    tissue[air] = number["gas"]
    tissue[outside_air(hu)] = number["outside air"]
    labelled = labels > 0
    tissue[labelled] = labels[labelled]
    lungs = (labels == number["left lung"]) | (labels == number["right lung"])
    tissue[lungs & (hu > VESSEL_ABOVE_HU)] = number["lung vessel"]
    tissue[(labels == number["esophagus"]) & air] = number["gas"]
    return tissue


def outside_air(hu: np.ndarray) -> np.ndarray:
    """Mask (K, J, I) of the air around the body: in each slice, near-empty air that touches the sides.

    Lungs that a small field of view cuts touch the sides as well; at about -850 HU they are not near-empty.
    """
    empty = ndimage.gaussian_filter(hu.astype(np.float32), (0, 1, 1)) < NEARLY_EMPTY_BELOW_HU
    outside = np.zeros(hu.shape, bool)
    for k, plane in enumerate(empty):
        regions, _ = ndimage.label(plane)
        rim = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
        outside[k] = np.isin(regions, rim[rim > 0])
    skin = ndimage.binary_dilation(outside, np.ones((1, 3, 3))) & (hu < AIR_BELOW_HU)
    return outside | skin


def _annotated(path: Path, organs: OrganSet) -> tuple[bool, ...]:
    try:
        names = parse_json(path.read_text(encoding="utf-8"))["annotated"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SegMateError(f'{path}: cannot read the list "annotated" of organ names ({error!r})') from None
    channels = set(organs.subset(names))
    return tuple(channel in channels for channel in range(len(organs)))


def _source_facts(folder: Path) -> dict:
    """ "source" and "licence" of SOURCE.txt ("key: value" lines); empty where there is none."""
    path = folder / "SOURCE.txt"
    if not path.is_file():
        return {}
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip() in ("source", "licence")}


def read_unlabelled(
    folder: str | PathLike, preprocessing: Preprocessing, rules, organs: OrganSet = NINE
) -> TrainingCase:
    """A CT without a reference, group "pseudo"; rules(hu) -> (labels uint8, names of organs to trust)."""
    folder = Path(folder)
    hu, _, _ = read_working_hu(folder, preprocessing)
    labels, names = rules(hu)
    if not names:
        raise SegMateError(
            f"{folder}: the classical rules found no organ that they can vouch for; leave it out"
        )
    channels = set(organs.subset(names))
    annotated = tuple(channel in channels for channel in range(len(organs)))
    labels = np.where(np.isin(labels, [channel + 1 for channel in channels]), labels, 0).astype(np.uint8)
    facts = {"annotated": list(names), "reference": "classical rules", **_source_facts(folder)}
    return TrainingCase(folder.name, "pseudo", hu, tissue_of_ct(hu, labels), labels, annotated, facts)
