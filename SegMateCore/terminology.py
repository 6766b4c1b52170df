"""Organs as Slicer's serialised terminology entries: seven fields of scheme^code^meaning, joined by "~".

context ~ category ~ type ~ modifier of the type ~ region context ~ anatomic region ~ modifier of the region
"""

from __future__ import annotations

from SegMateCore.organs import Organ

TERMINOLOGY_CONTEXT = "Segmentation category and type - DICOM master list"
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"
CATEGORY = "SCT^123037004^Anatomical Structure"
# What Slicer gives to every segment that nobody has coded: "Tissue".
UNCODED = "85756007"


def terminology_entry(organ: Organ) -> str:
    """Slicer's serialised terminology entry: contexts, category, type, modifier, no anatomic region.

    An organ without a code is a piece of tissue, as any new segment is in Slicer.
    """
    category, kind, modifier = CATEGORY, f"SCT^{organ.code}^{organ.meaning}", "^^"
    if organ.code is None:
        category = kind = f"SCT^{UNCODED}^Tissue"
    elif organ.modifier:
        modifier = f"SCT^{organ.modifier_code}^{organ.modifier.capitalize()}"
    return "~".join([TERMINOLOGY_CONTEXT, category, kind, modifier, ANATOMIC_CONTEXT, "^^", "^^"])


def codes_in(entry: str) -> tuple[str, str] | None:
    """(code of the type, code of its modifier or ""), whatever the contexts; None where nothing is coded."""
    fields = [field.split("^") for field in entry.split("~")]
    if len(fields) < 4 or len(fields[2]) < 2 or fields[2][1] in ("", UNCODED):
        return None
    return fields[2][1], fields[3][1] if len(fields[3]) > 1 else ""
