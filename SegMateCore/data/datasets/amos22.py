"""AMOS22: imagesTr, labelsTr, imagesVa, labelsVa (and Ts where labelled), amos_NNNN.nii.gz; CTs are numbers <
500.

Source of the layout: Ji et al. 2022, arXiv 2206.08023, and the download at doi.org/10.5281/zenodo.7155725.
The folders are the published split. Images of other numbers are MRI and passed over, and so are the test
images without labels: not all of these are published.
"""

from __future__ import annotations

import re
from pathlib import Path

from SegMateCore.data.datasets.references import LabelMap, as_it_lies
from SegMateCore.data.datasets.source import (
    SourceCase,
    SourceDataset,
    must_know_some,
    numbers_of,
    source_folder,
    visible,
)
from SegMateCore.data.splits import PUBLISHED, SplitRule
from SegMateCore.organs import OrganSet

CT_BELOW = 500
NUMBERS = {
    "spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "esophagus": 5, "liver": 6,
    "stomach": 7, "aorta": 8, "inferior vena cava": 9, "pancreas": 10, "right adrenal gland": 11,
    "left adrenal gland": 12, "duodenum": 13, "urinary bladder": 14,
}  # fmt: skip
FOLDERS = {"Tr": "train", "Va": "val", "Ts": "test"}
_NAME = re.compile(r"(amos_(\d{4}))\.nii(\.gz)?")


def find(folder: Path, organs: OrganSet) -> SourceDataset:
    """The CTs of all parts that have labels. Raises SegMateError."""
    folder = source_folder(folder)
    numbers = numbers_of(NUMBERS, organs)
    known = tuple(name for name, _ in numbers)
    must_know_some(known, organs, folder, NUMBERS)
    cases, others, unlabelled = [], set(), []
    for suffix, part in FOLDERS.items():
        images, labels = folder / f"images{suffix}", folder / f"labels{suffix}"
        if not labels.is_dir():
            continue
        with_labels = _numbers_in(labels)
        for name, number in sorted({**_numbers_in(images), **with_labels}.items()):
            if number >= CT_BELOW:
                others.add(name)
            elif part == "test" and name not in with_labels:
                unlabelled.append(name)
            else:
                ct, truth = (as_it_lies(place / f"{name}.nii.gz") for place in (images, labels))
                problem = _missing(ct, truth)
                cases.append(SourceCase(name, name, ct, LabelMap(truth, numbers), known, part, problem))
    notes = [f"{len(others)} images passed over: no CT (number {CT_BELOW} or above)"] if others else []
    notes += [f"{len(unlabelled)} test images passed over: no labels"] if unlabelled else []
    return SourceDataset(
        "amos22",
        folder,
        organs,
        tuple(cases),
        SplitRule(PUBLISHED),
        notes=tuple(notes),
        numbers=numbers,
        licence="CC BY 4.0",
        origin="AMOS22, Ji et al. 2022, doi.org/10.5281/zenodo.7155725",
    )


def _numbers_in(folder: Path) -> dict[str, int]:
    """Case -> its number, of the images in `folder`; other files do not count."""
    if not folder.is_dir():
        return {}
    found = [_NAME.fullmatch(path.name) for path in visible(folder.iterdir())]
    return {match[1]: int(match[2]) for match in found if match is not None}


def _missing(*paths: Path) -> str | None:
    """A problem text that names folders too, since CT and labels have the same name; None: all there."""
    missing = [f"{path.parent.name}/{path.name}" for path in paths if not path.is_file()]
    return f"no {', '.join(missing)}: complete the case, or leave it out" if missing else None
