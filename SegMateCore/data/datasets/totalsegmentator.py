"""TotalSegmentator, versions 1 and 2: <case>/ct.nii.gz, <case>/segmentations/<structure>.nii.gz, meta.csv.

Source of the layout: Wasserthal et al. 2023, doi.org/10.1148/ryai.230024, and the downloads at
doi.org/10.5281/zenodo.6802613 and 10047292. Version 1 has no spinal_cord: an organ for which no case has
files is un-annotated; one for which only some have is missing in the others, and those are broken. Lungs are
the union of their lobes.
"""

from __future__ import annotations

import csv
from pathlib import Path

from SegMateCore.data.datasets.references import Masks, missing_files
from SegMateCore.data.datasets.source import (
    SourceCase,
    SourceDataset,
    must_know_some,
    source_folder,
    visible,
)
from SegMateCore.data.splits import PARTS, PUBLISHED, SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.organs import Organ, OrganSet

LOBES = {
    "left lung": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "right lung": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
}
META_NAME = "meta.csv"


def find(folder: Path, organs: OrganSet) -> SourceDataset:
    """The cases under `folder`: each visible sub-folder is one. Raises SegMateError."""
    folder = source_folder(folder)
    places = [entry for entry in visible(folder.iterdir()) if entry.is_dir()]
    files_of = {place: {organ.name: _files(place, organ) for organ in organs} for place in places}
    known = tuple(
        organ.name
        for organ in organs
        if any(missing_files(files_of[place][organ.name]) is None for place in places)
    )
    if places:
        must_know_some(known, organs, folder, ())
    published = _published(folder / META_NAME)
    cases = []
    for place in places:
        parts = tuple((name, files_of[place][name]) for name in known)
        ct = place / "ct.nii.gz"
        reference = Masks(parts)
        cases.append(
            SourceCase(
                name=place.name,
                patient=place.name,
                ct=ct,
                reference=reference,
                annotated=known,
                published=published.get(place.name),
                problem=missing_files([ct, *reference.files()]),
            )
        )
    split = SplitRule(PUBLISHED) if published else SplitRule()
    unknown = [organ.name for organ in organs if organ.name not in known]
    notes = (f"not annotated in this data set: {', '.join(unknown)}",) if unknown else ()
    return SourceDataset(
        "totalsegmentator",
        folder,
        organs,
        tuple(cases),
        split,
        keeps_empty=True,
        notes=notes,
        licence="CC BY 4.0",
        origin="TotalSegmentator, Wasserthal et al. 2023, doi.org/10.1148/ryai.230024",
    )


def structures(organ: Organ) -> tuple[str, ...]:
    """The names of the structures that make up an organ: ("kidney_left",)."""
    if organ.name in LOBES:
        return LOBES[organ.name]
    if organ.modifier is not None and organ.key.startswith(f"{organ.modifier}_"):
        return (f"{organ.key.removeprefix(f'{organ.modifier}_')}_{organ.modifier}",)
    return (organ.key,)


def _files(place: Path, organ: Organ) -> tuple[Path, ...]:
    return tuple(place / "segmentations" / f"{name}.nii.gz" for name in structures(organ))


def _published(path: Path) -> dict[str, str]:
    """Case -> "train", "val" or "test" from meta.csv; empty where there is no such file or column."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SegMateError(f"{path} cannot be read ({error}): copy it anew, or move it away") from None
    header = text.partition("\n")[0]
    rows = list(csv.DictReader(text.splitlines(), delimiter=";" if ";" in header else ","))
    if not rows or not {"image_id", "split"} <= set(rows[0]):
        return {}
    published = {row["image_id"]: (row["split"] or "").strip().lower() for row in rows}
    wrong = sorted(set(published.values()) - set(PARTS))
    if wrong:
        raise SegMateError(f"{path} has the split {wrong[0]!r}, expected {', '.join(PARTS)}: mend the table")
    return published
