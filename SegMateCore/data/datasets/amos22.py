"""AMOS22: imagesTr, labelsTr, imagesVa, labelsVa (and Ts where labelled), amos_NNNN.nii.gz; CTs are numbers <
500.

Source of the layout: Ji et al. 2022, arXiv 2206.08023, and the download at doi.org/10.5281/zenodo.7155725.
The folders are the published split. Images of other numbers are MRI and passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

from SegMateCore.data.datasets.references import LabelMap, missing_files
from SegMateCore.data.datasets.source import (
    SourceCase,
    SourceDataset,
    must_know_some,
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
_NAME = re.compile(r"(amos_(\d{4}))\.nii\.gz")


def find(folder: Path, organs: OrganSet) -> SourceDataset:
    """The CTs of all parts that have labels. Raises SegMateError."""
    folder = source_folder(folder)
    known = tuple(name for name in organs.names if name in NUMBERS)
    must_know_some(known, organs, folder, NUMBERS)
    numbers = tuple((name, (NUMBERS[name],)) for name in known)
    cases, others = [], 0
    for suffix, part in FOLDERS.items():
        images, labels = folder / f"images{suffix}", folder / f"labels{suffix}"
        if not labels.is_dir():
            continue
        entries = {
            path.name for place in (images, labels) if place.is_dir() for path in visible(place.iterdir())
        }
        for file_name in sorted(entries):
            found = _NAME.fullmatch(file_name)
            if found is None or int(found[2]) >= CT_BELOW:
                others += 1
                continue
            ct, truth = images / file_name, labels / file_name
            problem = missing_files([ct]) or (
                None if truth.is_file() else f"no {truth.parent.name}/{truth.name}"
            )
            cases.append(SourceCase(found[1], found[1], ct, LabelMap(truth, numbers), known, part, problem))
    notes = (f"{others} files passed over: not a CT (number {CT_BELOW} or above)",) if others else ()
    return SourceDataset(
        "amos22",
        folder,
        organs,
        tuple(cases),
        SplitRule(PUBLISHED),
        notes=notes,
        licence="CC BY 4.0",
        origin="AMOS22, Ji et al. 2022, doi.org/10.5281/zenodo.7155725",
    )
