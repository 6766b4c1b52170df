"""Synthetic CTs on disk in the layouts of public datasets, so that their readers run without a download.

Each writer takes a folder and an iterable of `Phantom` (used one at a time, so a generator keeps memory
low), writes what the dataset's download holds for the organs that a phantom knows, with exactly the
dataset's file names and label numbers, and returns the case names. Sources of the layouts: TotalSegmentator
v1 and v2 (Wasserthal 2023), SegTHOR (Lambert 2020), AMOS22 (Ji 2022), nnU-Net's raw format version 2
(Isensee 2021), Medical Segmentation Decathlon (Antonelli 2022).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from SegMateCore.atomic import atomic_write
from SegMateCore.data.phantom import Phantom, make_phantom
from SegMateCore.data.tissue import TISSUE_INDEX
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE

TOTALSEGMENTATOR_FILES = {
    "spinal cord": "spinal_cord",
    "esophagus": "esophagus",
    "liver": "liver",
    "left kidney": "kidney_left",
    "right kidney": "kidney_right",
    "aorta": "aorta",
    "trachea": "trachea",
}
SEGTHOR_LABELS = {"esophagus": 1, "trachea": 3, "aorta": 4}
SEGTHOR_HEART = 2
AMOS22_LABELS = {"right kidney": 2, "left kidney": 3, "esophagus": 5, "liver": 6, "aorta": 8}
AMOS22_NAMES = (
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gall bladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
)
AMOS22_CT_BELOW = 500
"""AMOS22's CTs have case numbers below this, its MRIs from it on."""


def phantom_files(
    folder: str | Path, seeds: Sequence[int], annotated: Sequence[str] | None = None, **options
) -> list[str]:
    """Plain cases: <folder>/phantom_<seed>/ct.nii.gz, labels.nii.gz (1..9) and organs.json.

    annotated: names of the organs to keep in the labels, None: all nine. options: as for `make_phantom`.
    """
    kept = NINE.names if annotated is None else tuple(NINE.by_name(name).name for name in annotated)
    keys = [NINE.by_name(name).key for name in kept]
    cases = []
    for seed in seeds:
        phantom = make_phantom(seed, **options)
        case = Path(folder) / f"phantom_{seed:04d}"
        _write_image(phantom, case / "ct.nii.gz")
        _write_labels(
            phantom,
            _renumbered(phantom, {name: NINE.by_name(name).label for name in kept}),
            case / "labels.nii.gz",
        )
        _write_json(
            case / "organs.json",
            {"organ_order": [organ.key for organ in NINE], "annotated": keys, "phantom": phantom.info},
        )
        cases.append(case.name)
    return cases


def write_totalsegmentator(folder: str | Path, phantoms: Iterable[Phantom], version: int = 2) -> list[str]:
    """<case>/ct.nii.gz, <case>/segmentations/<name>.nii.gz (0/1, five lobes) and meta.csv with image_id and
    split.

    version 1 has no spinal_cord files. Every tenth case is "val", every following one "test", others "train".
    """
    if version not in (1, 2):
        raise SegMateError(f"TotalSegmentator version {version}: expected 1 or 2")
    cases, rows = [], ["image_id;split"]
    for number, phantom in enumerate(phantoms):
        case = f"s{number:04d}"
        place = Path(folder) / case
        _write_image(phantom, place / "ct.nii.gz")
        masks = {
            name: phantom.labels == NINE.by_name(organ).label
            for organ, name in TOTALSEGMENTATOR_FILES.items()
            if version == 2 or organ != "spinal cord"
        }
        masks |= lung_lobes(phantom)
        masks["spleen"] = phantom.tissue == TISSUE_INDEX["spleen"]
        for name, mask in masks.items():
            _write_labels(phantom, mask.astype(np.uint8), place / "segmentations" / f"{name}.nii.gz")
        cases.append(case)
        rows.append(f"{case};{'val' if number % 10 == 8 else 'test' if number % 10 == 9 else 'train'}")
    _write_text(Path(folder) / "meta.csv", "\n".join(rows) + "\n")
    return cases


def write_segthor(folder: str | Path, phantoms: Iterable[Phantom]) -> list[str]:
    """Patient_NN/Patient_NN.nii.gz and Patient_NN/GT.nii.gz: 1 esophagus, 2 heart, 3 trachea, 4 aorta."""
    cases = []
    for number, phantom in enumerate(phantoms, start=1):
        case = f"Patient_{number:02d}"
        labels = np.where(heart_mask(phantom), np.uint8(SEGTHOR_HEART), np.uint8(0))
        _renumbered(phantom, SEGTHOR_LABELS, out=labels)
        _write_image(phantom, Path(folder) / case / f"{case}.nii.gz")
        _write_labels(phantom, labels, Path(folder) / case / "GT.nii.gz")
        cases.append(case)
    return cases


def write_amos22(folder: str | Path, phantoms: Iterable[Phantom], validation: int = 1) -> list[str]:
    """imagesTr, labelsTr, imagesVa, labelsVa (the last `validation` of every ten cases) and dataset.json."""
    folder, cases = Path(folder), []
    listed: dict[str, list] = {"training": [], "validation": [], "test": []}
    for number, phantom in enumerate(phantoms, start=1):
        if number >= AMOS22_CT_BELOW:
            raise SegMateError(
                f"{number} phantoms for AMOS22: its CTs have numbers below {AMOS22_CT_BELOW}; write fewer"
            )
        case, held_out = f"amos_{number:04d}", (number - 1) % 10 >= 10 - validation
        part = "Va" if held_out else "Tr"
        labels = (phantom.tissue == TISSUE_INDEX["spleen"]).astype(np.uint8)
        _renumbered(phantom, AMOS22_LABELS, out=labels)
        _write_image(phantom, folder / f"images{part}" / f"{case}.nii.gz")
        _write_labels(phantom, labels, folder / f"labels{part}" / f"{case}.nii.gz")
        entry = {"image": f"./images{part}/{case}.nii.gz", "label": f"./labels{part}/{case}.nii.gz"}
        listed["validation" if held_out else "training"].append(entry)
        cases.append(case)
    labels = {str(number): name for number, name in enumerate(AMOS22_NAMES)}
    counts = {
        "numTraining": len(listed["training"]),
        "numValidation": len(listed["validation"]),
        "numTest": 0,
    }
    _write_json(
        folder / "dataset.json",
        {"name": "AMOS", "modality": {"0": "CT"}, "labels": labels, **counts, **listed},
    )
    return cases


def write_nnunet(folder: str | Path, phantoms: Iterable[Phantom]) -> list[str]:
    """nnU-Net raw: imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz (the nine, 1..9) and dataset.json."""
    folder, cases = Path(folder), []
    for number, phantom in enumerate(phantoms):
        case = f"phantom_{number:03d}"
        _write_image(phantom, folder / "imagesTr" / f"{case}_0000.nii.gz")
        _write_labels(phantom, phantom.labels, folder / "labelsTr" / f"{case}.nii.gz")
        cases.append(case)
    labels = {"background": 0, **{organ.key: organ.label for organ in NINE}}
    document = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    _write_json(folder / "dataset.json", document)
    return cases


def write_decathlon(folder: str | Path, phantoms: Iterable[Phantom]) -> list[str]:
    """Medical Segmentation Decathlon: imagesTr/<case>.nii.gz, labelsTr/<case>.nii.gz and its dataset.json."""
    folder, cases = Path(folder), []
    for number, phantom in enumerate(phantoms):
        case = f"phantom_{number:03d}"
        _write_image(phantom, folder / "imagesTr" / f"{case}.nii.gz")
        _write_labels(phantom, phantom.labels, folder / "labelsTr" / f"{case}.nii.gz")
        cases.append(case)
    document = {
        "name": "phantoms",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(organ.label): organ.name for organ in NINE}},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases
        ],
        "test": [],
    }
    _write_json(folder / "dataset.json", document)
    return cases


def lung_lobes(phantom: Phantom) -> dict[str, np.ndarray]:
    """The lungs cut by slanting planes into TotalSegmentator's five lobes: name to (K, J, I) bool.

    The oblique fissures rise to the back, the right lung's horizontal one lies in front; a mirrored phantom's
    three-lobed lung is not modelled, names follow the patient's sides.
    """
    spacing = phantom.volume.spacing_mm
    k, j = (np.arange(size, dtype=np.float32) for size in phantom.labels.shape[:2])
    lobes = {}
    for side in ("left", "right"):
        lung = phantom.labels == NINE.by_name(f"{side} lung").label
        if lung.any():
            ks, js = np.flatnonzero(lung.any(axis=(1, 2))), np.flatnonzero(lung.any(axis=(0, 2)))
            middle_k, middle_j = (ks[0] + 0.45 * (ks[-1] - ks[0])), (js[0] + js[-1]) / 2
        else:
            middle_k = middle_j = 0.0
        height = ((k - middle_k) * spacing[2])[:, None]
        behind = ((j - middle_j) * spacing[1])[None]
        upper = lung & (height > 0.9 * behind)[..., None]
        lobes[f"lung_lower_lobe_{side}"] = lung & ~upper
        if side == "right":
            lobes["lung_middle_lobe_right"] = upper & (height < -0.1 * behind)[..., None]
            upper &= ~lobes["lung_middle_lobe_right"]
        lobes[f"lung_upper_lobe_{side}"] = upper
    return lobes


def heart_mask(phantom: Phantom) -> np.ndarray:
    """(K, J, I) bool: myocardium and the chambers that it encloses, without the vessels that leave it."""
    muscle = phantom.tissue == TISSUE_INDEX["myocardium"]
    heart = np.zeros(muscle.shape, bool)
    found = ndimage.find_objects(muscle.astype(np.uint8))
    if not found or found[0] is None:
        return heart
    box = found[0]
    blood = np.isin(phantom.tissue[box], [TISSUE_INDEX["venous blood"], TISSUE_INDEX["arterial blood"]])
    solid = muscle[box] | blood
    rounds = max(1, round(6 / min(phantom.volume.spacing_mm)))
    opened = ndimage.binary_opening(solid, iterations=rounds)
    heart[box] = (opened | muscle[box]) & (phantom.labels[box] == 0)
    return heart


def _renumbered(phantom: Phantom, numbers: dict[str, int], out: np.ndarray | None = None) -> np.ndarray:
    """The phantom's labels under a dataset's numbers, painted over `out` where it is given."""
    out = np.zeros(phantom.labels.shape, np.uint8) if out is None else out
    for organ, number in numbers.items():
        out[phantom.labels == NINE.by_name(organ).label] = number
    return out


def _write_image(phantom: Phantom, path: Path) -> None:
    phantom.volume.write(path)


def _write_labels(phantom: Phantom, labels: np.ndarray, path: Path) -> None:
    phantom.volume.with_voxels(labels).write(path)


def _write_json(path: Path, document: dict) -> None:
    _write_text(path, json.dumps(document, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8"))
