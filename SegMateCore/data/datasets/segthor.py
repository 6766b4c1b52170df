"""SegTHOR: Patient_NN/Patient_NN.nii.gz and Patient_NN/GT.nii.gz with esophagus, heart, trachea, aorta.

Source of the layout: Lambert et al. 2020, arXiv 1912.05950, and the challenge's download, whose folder
`train` may be given too. The challenge's test patients have no GT.nii.gz and lie outside such folders. No
split is published; the original SegMate project divided the 40 patients 30/5/5.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.data.datasets.references import LabelMap, as_it_lies, missing_files
from SegMateCore.data.datasets.source import (
    SourceCase,
    SourceDataset,
    must_know_some,
    numbers_of,
    source_folder,
    visible,
)
from SegMateCore.data.splits import SplitRule
from SegMateCore.organs import OrganSet

NUMBERS = {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}
SHARES = (30.0, 5.0, 5.0)


def find(folder: Path, organs: OrganSet) -> SourceDataset:
    """The patients under `folder` or `folder`/train. Raises SegMateError."""
    folder = source_folder(folder)
    places = _patients(folder) or (_patients(folder / "train") if (folder / "train").is_dir() else [])
    numbers = numbers_of(NUMBERS, organs)
    known = tuple(name for name, _ in numbers)
    must_know_some(known, organs, folder, NUMBERS)
    cases = []
    for place in places:
        ct, truth = as_it_lies(place / f"{place.name}.nii.gz"), as_it_lies(place / "GT.nii.gz")
        problem = missing_files([ct, truth])
        cases.append(SourceCase(place.name, place.name, ct, LabelMap(truth, numbers), known, None, problem))
    return SourceDataset(
        "segthor",
        folder,
        organs,
        tuple(cases),
        SplitRule(shares=SHARES),
        numbers=numbers,
        licence="see the challenge's terms",
        origin="SegTHOR, Lambert et al. 2020, arXiv 1912.05950",
    )


def _patients(folder: Path) -> list[Path]:
    return [
        entry for entry in visible(folder.iterdir()) if entry.is_dir() and entry.name.startswith("Patient_")
    ]
