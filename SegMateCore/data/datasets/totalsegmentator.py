"""TotalSegmentator, versions 1 and 2: <case>/ct.nii.gz, <case>/segmentations/<structure>.nii.gz, meta.csv.

Source of the layout: Wasserthal et al. 2023, doi.org/10.1148/ryai.230024, and the downloads at
doi.org/10.5281/zenodo.6802613 and 10047292. Version 1 has no spinal_cord: an organ for which no case has
files is un-annotated; one for which only some have is missing in the others, and those are broken, for an
organ that was not annotated cannot be told from one that got lost. Lungs are the union of their lobes.
Folders with neither ct.nii.gz nor segmentations are no cases.
"""

from __future__ import annotations

import csv
from pathlib import Path

from SegMateCore.data.datasets.references import Masks, as_it_lies, missing_files
from SegMateCore.data.datasets.source import (
    SourceCase,
    SourceDataset,
    case_places,
    must_know_some,
    source_folder,
)
from SegMateCore.data.splits import PARTS, PUBLISHED, SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.organs import Organ, OrganSet, organ_key

LOBES = {
    "left lung": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "right lung": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
}
META_NAME, CT_NAME, MASKS_FOLDER = "meta.csv", "ct.nii.gz", "segmentations"


def find(folder: Path, organs: OrganSet) -> SourceDataset:
    """The cases under `folder`: its visible sub-folders. Raises SegMateError."""
    folder = source_folder(folder)
    places, strangers = case_places(folder, (CT_NAME, CT_NAME.removesuffix(".gz"), MASKS_FOLDER))
    files_of = {place: {organ.name: _files(place, organ) for organ in organs} for place in places}
    having = {
        organ.name: sum(missing_files(files[organ.name]) is None for files in files_of.values())
        for organ in organs
    }
    known = tuple(name for name, count in having.items() if count)
    if places:
        must_know_some(known, organs, folder, ())
    published = _published(folder / META_NAME)
    cases = []
    for place in places:
        files = files_of[place]
        ct = as_it_lies(place / CT_NAME)
        cases.append(
            SourceCase(
                name=place.name,
                patient=place.name,
                ct=ct,
                reference=Masks(tuple((name, files[name]) for name in known)),
                annotated=known,
                published=published.get(place.name),
                problem=missing_files([ct]) or _missing_masks({name: files[name] for name in known}, having),
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
        notes=(*notes, *strangers),
        licence="CC BY 4.0",
        origin="TotalSegmentator, Wasserthal et al. 2023, doi.org/10.1148/ryai.230024",
    )


def structures(organ: Organ) -> tuple[str, ...]:
    """The names of the structures that make up an organ: ("kidney_left",)."""
    key = organ_key(organ.name)
    lobes = LOBES.get(key.replace("_", " "))
    if lobes is not None:
        return lobes
    if organ.modifier is not None and key.startswith(f"{organ.modifier}_"):
        return (f"{key.removeprefix(f'{organ.modifier}_')}_{organ.modifier}",)
    return (key,)


def _files(place: Path, organ: Organ) -> tuple[Path, ...]:
    return tuple(as_it_lies(place / MASKS_FOLDER / f"{name}.nii.gz") for name in structures(organ))


def _missing_masks(files: dict[str, tuple[Path, ...]], having: dict[str, int]) -> str | None:
    """files: of each organ of a case. having: how many cases have all files of an organ."""
    problem = missing_files(path for paths in files.values() for path in paths)
    if problem is None:
        return None
    lacking = [name for name, paths in files.items() if missing_files(paths) is not None]
    counts = ", ".join(f"{name} in {having[name]} cases" for name in lacking[:3])
    return f"{problem}, or choose other organs with --organs (there are masks of {counts})"


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
