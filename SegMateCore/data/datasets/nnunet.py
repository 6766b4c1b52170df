"""nnU-Net's raw format and the Medical Segmentation Decathlon's, which it grew from: dataset.json and
folders.

Sources: nnU-Net v2's documentation/dataset_format.md (labels name -> number, channel_names, file_ending,
files imagesTr/<case>_0000<ending> and labelsTr/<case><ending>) and Antonelli et al. 2022, arXiv 2106.05735
(labels number -> name, modality, lists of image and label paths under "training"). Of several channels the CT
is taken. Where labelsTs is there, its cases are the published test set and stay it unless a ratio is asked
for; train and validation are not divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.organ_names import numbers_by_organ
from SegMateCore.data.datasets.references import LabelMap, missing_files
from SegMateCore.data.datasets.source import (
    NOT_STATED,
    SourceCase,
    SourceDataset,
    must_know_some,
    source_folder,
    visible,
)
from SegMateCore.data.splits import DEFAULT_SHARES, SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import OrganSet

INDEX_NAME = "dataset.json"
# The usual shares of training and validation, where the data set has its own test set.
BESIDE_TEST_SET = SplitRule(shares=(*DEFAULT_SHARES[:2], 0.0), test_apart=True)


@dataclass(frozen=True)
class _Pair:
    """A label map and the image for it, both paths absolute."""

    name: str
    image: Path
    label: Path
    published: str


def find(folder: Path, organs: OrganSet, table: LabelTable | None = None) -> SourceDataset:
    """The labelled cases under `folder`; table: which numbers are which organs, instead of dataset.json's
    names.

    Raises SegMateError for a missing or unknown dataset.json, images that are no CT, and labels that are
    partly unknown ("ignore").
    """
    folder = source_folder(folder)
    document = _document(folder / INDEX_NAME)
    labels = _labels(document, folder / INDEX_NAME)
    numbers = numbers_by_organ(labels, organs) if table is None else table.for_organs(organs)
    known = tuple(name for name, _ in numbers)
    must_know_some(known, organs, folder, labels)
    channel = _ct_channel(document, folder / INDEX_NAME)
    pairs = _pairs(folder, document, channel)
    cases = [
        SourceCase(
            name=pair.name,
            patient=pair.name,
            ct=pair.image,
            reference=LabelMap(pair.label, numbers),
            annotated=known,
            published=pair.published,
            problem=missing_files([pair.image, pair.label]),
        )
        for pair in pairs
    ]
    return SourceDataset(
        "nnunet",
        folder,
        organs,
        tuple(cases),
        BESIDE_TEST_SET if any(pair.published == "test" for pair in pairs) else SplitRule(),
        notes=_unused(labels, numbers),
        numbers=numbers,
        licence=str(document.get("licence") or document.get("license") or NOT_STATED),
        origin=str(document.get("reference") or document.get("name") or folder.name),
    )


def _unused(
    labels: dict[str, tuple[int, ...]], numbers: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[str, ...]:
    """A note on labels that become background, for a tumour in an organ should not."""
    used = {value for _, values in numbers for value in values}
    names = [name for name, values in labels.items() if not used & set(values)]
    if not names:
        return ()
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (f"labels taken for background: {shown}; parts of organs are named with --labels",)


def _document(path: Path) -> dict:
    try:
        document = parse_json(path.read_text(encoding="utf-8"), constants=False)
    except FileNotFoundError:
        raise SegMateError(f"no {path}: expected an nnU-Net raw or Decathlon data set's folder") from None
    except (OSError, ValueError) as error:
        raise SegMateError(f"{path} cannot be read ({error}): copy it anew") from None
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise SegMateError(f'{path} has no "labels": expected those of nnU-Net or the Decathlon')
    return document


def _labels(document: dict, path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> values. Both directions are in use, and a name may stand for a region of several values."""
    labels: dict[str, tuple[int, ...]] = {}
    try:
        for key, value in document["labels"].items():
            if isinstance(value, str):
                labels[value] = (*labels.get(value, ()), int(key))
            else:
                labels[key] = tuple(int(one) for one in (value if isinstance(value, list) else [value]))
    except (TypeError, ValueError):
        raise SegMateError(
            f'{path}: "labels" has {value!r} for {key!r}, expected numbers and names'
        ) from None
    if "ignore" in labels:
        raise SegMateError(
            f'{path} has the label "ignore": of such voxels nothing is known, which a Store cannot say;'
            " leave out the cases that have it and take it off the list"
        )
    # Background may be named like anything, and never is an organ.
    return {name: values for name, values in labels.items() if 0 not in values}


def _ct_channel(document: dict, path: Path) -> int:
    channels = document.get("channel_names", document.get("modality"))
    if not isinstance(channels, Mapping) or not channels:
        raise SegMateError(
            f'{path} says neither "channel_names" nor "modality": add "channel_names": {{"0": "CT"}}'
        )
    for number, name in channels.items():
        if str(name).strip().lower() in ("ct", "cect", "ncct", "computed tomography"):
            if str(number).isdecimal():
                return int(number)
            raise SegMateError(f"{path} gives the CT the channel {number!r}, expected its number, such as 0")
    raise SegMateError(f"{path} lists the images as {', '.join(map(str, channels.values()))}, expected a CT")


def _pairs(folder: Path, document: dict, channel: int) -> list[_Pair]:
    """The labelled cases that the document lists, or else those of the folders, by name."""
    ending = document.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending:
        raise SegMateError(f'{folder / INDEX_NAME}: "file_ending" is {ending!r}, expected such as .nii.gz')
    if isinstance(document.get("dataset"), Mapping):
        return _listed(folder, document["dataset"], channel)
    pairs = _decathlon(folder, document.get("training"), ending, channel)
    for suffix, part in (("Tr", "train"), ("Ts", "test")):
        if (part == "train" and pairs) or not (folder / f"labels{suffix}").is_dir():
            continue
        for label in visible((folder / f"labels{suffix}").iterdir()):
            if label.name.endswith(ending):
                name = label.name.removesuffix(ending)
                pairs.append(
                    _Pair(name, _image(folder / f"images{suffix}", name, ending, channel), label, part)
                )
    return sorted(pairs, key=lambda pair: pair.name)


def _listed(folder: Path, listing: Mapping, channel: int) -> list[_Pair]:
    """nnU-Net's "dataset": case -> its images, one for each channel, and its label."""
    pairs = []
    for name, entry in sorted(listing.items()):
        try:
            image, label = folder / entry["images"][channel], folder / entry["label"]
        except (KeyError, TypeError, IndexError):
            raise SegMateError(
                f'{folder / INDEX_NAME}: the entry of {name} in "dataset" is {entry!r}, expected'
                f' "images" (a list, the CT at {channel}) and "label"'
            ) from None
        pairs.append(_Pair(name, image, label, "train"))
    return pairs


def _decathlon(folder: Path, listing: object, ending: str, channel: int) -> list[_Pair]:
    """The Decathlon's "training": a list of image and label; nnU-Net has other things under that name."""
    if not isinstance(listing, list) or not all(isinstance(entry, dict) for entry in listing):
        return []
    pairs = []
    for entry in listing:
        try:
            image, label = folder / entry["image"], folder / entry["label"]
        except (KeyError, TypeError):
            raise SegMateError(
                f'{folder / INDEX_NAME}: an entry of "training" is {entry!r}, expected "image" and "label"'
            ) from None
        name = label.name.removesuffix(ending)
        pairs.append(_Pair(name, _image(image.parent, name, ending, channel), label, "train"))
    return pairs


def _image(folder: Path, name: str, ending: str, channel: int) -> Path:
    """The image for a case: with the channel's number, as in nnU-Net, or without, as in the Decathlon."""
    numbered = folder / f"{name}_{channel:04d}{ending}"
    plain = folder / f"{name}{ending}"
    return plain if plain.is_file() and not numbered.is_file() else numbered
