"""Which organ each segment of a DICOM SEG is: by its codes and side, else by its label.

Takes the segments' descriptions (DICOM PS3.3 C.8.20.4), gives Organs by segment number. Codes may be SNOMED
CT or its older SRT form, which files of earlier years have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from SegMateCore.dicom_header import TISSUE
from SegMateCore.errors import SegMateError
from SegMateCore.organs import LARGEST_LABEL, MODIFIER_CODES, Organ, OrganSet, organ_key

# Earlier names of the scheme SRT: DICOM PS3.16 8.
_SAME_SCHEME = dict.fromkeys(("SNM3", "99SDM"), "SRT")
# Of organs that the package does not know.
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Segment:
    """number: as frames refer to it. code: of its type, None where it says no more than that it is tissue.

    side: "left", "right" or None.
    """

    number: int
    label: str
    code: Code | None
    side: str | None


def segments_of(dataset: Dataset) -> list[Segment]:
    """The segments that a DICOM SEG describes."""
    found = []
    for item in dataset.SegmentSequence:
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence") or item.get(
            "SegmentedPropertyTypeModifierCodeSequence"
        )
        code = _code(kind)
        side = None if not modifiers else _side(_code(modifiers[0]))
        number = int(item.SegmentNumber)
        label = " ".join(str(item.get("SegmentLabel") or f"segment {number}").split())
        found.append(Segment(number, label, None if code == TISSUE else code, side))
    return found


def organs_by_number(segments: Sequence[Segment], organs: OrganSet) -> dict[int, Organ]:
    """The organ of each segment. Raises SegMateError for a segment that is none of `organs`."""
    found = {}
    for segment in segments:
        organ = _match(segment, organs)
        if organ is None:
            raise SegMateError(
                f"the segment {segment.label!r} is no organ of the table, expected one of:"
                f" {', '.join(organs.names)}"
            )
        found[segment.number] = organ
    return found


def own_table(segments: Sequence[Segment], known: OrganSet) -> tuple[OrganSet, dict[int, Organ]]:
    """(the file's organs, the organ of each segment): known ones with their labels, others with the next
    ones.

    Raises SegMateError for more segments than label maps have labels.
    """
    matched: dict[int, Organ] = {}
    for segment in segments:
        organ = _match(segment, known)
        if organ is not None and organ not in matched.values():
            matched[segment.number] = organ
    if matched:
        kept = known.only(sorted({known.index(organ.name) for organ in matched.values()}))
        matched = {number: kept.by_name(organ.name) for number, organ in matched.items()}
    label = max(known.labels)
    names = {organ_key(organ.name) for organ in matched.values()}
    for segment in segments:
        if segment.number in matched:
            continue
        label += 1
        if label > LARGEST_LABEL:
            raise SegMateError(f"{len(segments)} segments are more than a label map can hold: give fewer")
        name = segment.label
        if organ_key(name) in names:
            name = f"{name} (segment {segment.number})"
        names.add(organ_key(name))
        code = segment.code
        coded = (None, None) if code is None else (code.value, code.meaning)
        matched[segment.number] = Organ(name, label, *coded, segment.side, GREY)
    ordered = sorted(matched.values(), key=lambda organ: organ.label)
    return OrganSet(tuple(ordered)), matched


def _match(segment: Segment, organs: OrganSet) -> Organ | None:
    """The organ with the segment's code and side; its label decides between several, and where it has no
    code.
    """
    named = [organ for organ in organs if organ_key(organ.name) == organ_key(segment.label)]
    if segment.code is None:
        return named[0] if named else None
    coded = [
        organ
        for organ in organs
        if organ.code is not None
        and segment.code == Code(organ.code, "SCT", "")
        and organ.modifier == segment.side
    ]
    if len(coded) == 1:
        return coded[0]
    return next((organ for organ in coded if organ in named), None)


def _code(item: Dataset) -> Code:
    value = item.get("CodeValue") or item.get("LongCodeValue") or ""
    scheme = str(item.get("CodingSchemeDesignator") or "")
    code = Code(str(value), _SAME_SCHEME.get(scheme, scheme), str(item.get("CodeMeaning") or ""))
    return TISSUE if code == TISSUE or not value else code


def _side(code: Code) -> str | None:
    for side, value in MODIFIER_CODES.items():
        if code == Code(value, "SCT", ""):
            return side
    return None
