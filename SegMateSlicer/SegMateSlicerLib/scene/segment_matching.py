"""Which segment is which organ: by the codes of its terminology entry, else by its id or name.

Takes a vtkSegmentation and an OrganSet, gives segment ids. Ambiguity and contradictions (two livers; a
segment coded as the left kidney but called right kidney) are refused, never resolved by a guess.
"""

from __future__ import annotations

from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateCore.organs import Organ, OrganSet
from SegMateCore.terminology import codes_in


def segments_by_id(segmentation, organs: OrganSet) -> dict[str, str]:
    """Segment id by organ name: coded as the organ, else with the organ's key as its id."""
    return _find(segmentation, organs, lambda organ, segment_id, name: segment_id == organ.key)


def segments_by_name(segmentation, organs: OrganSet) -> dict[str, str]:
    """Segment id by organ name: coded as the organ, or called like it in any case and not coded otherwise.

    A segment that somebody has drawn and named is as good a liver as one that is coded: both are refused.
    """
    return _find(segmentation, organs, lambda organ, _id, name: name == organ.key.lower(), both=True)


def _called(segment) -> str:
    return (segment.GetName() or "").strip().lower().replace(" ", "_")


def _find(segmentation, organs: OrganSet, is_fallback, both: bool = False) -> dict[str, str]:
    """both: segments that only the fallback finds count beside coded ones, too.

    Raises SegMateError for two segments of one organ and for a code that contradicts the name.
    """
    segments = {key: segmentation.GetSegment(key) for key in segmentation.GetSegmentIDs()}
    codes = {key: codes_in(segment.GetTerminology() or "") for key, segment in segments.items()}
    found = {}
    for organ in organs:
        wanted = organ.code, organ.modifier_code or ""
        matches = [segment_id for segment_id in segments if codes[segment_id] == wanted]
        if both or not matches:
            codes_allowed = (None, (organ.code, ""))
            matches += [
                segment_id
                for segment_id, segment in segments.items()
                if segment_id not in matches
                and codes[segment_id] in codes_allowed
                and is_fallback(organ, segment_id, _called(segment))
            ]
        if len(matches) > 1:
            names = ", ".join(repr(segments[segment_id].GetName()) for segment_id in matches)
            raise SegMateError(
                _(
                    "the segments {names} stand for the same organ, {organ}, expected one; remove or"
                    " rename the other, or change its terminology"
                ).format(names=names, organ=organ.name)
            )
        if matches:
            found[organ.name] = matches[0]
            _check_name(segments[matches[0]], organ, organs)
    return found


def _check_name(segment, organ: Organ, organs: OrganSet) -> None:
    others = {other.key.lower(): other.name for other in organs if other is not organ}
    if _called(segment) in others:
        raise SegMateError(
            _(
                "the segment {name!r} is coded as {organ}, expected a name and a terminology of the same"
                " organ; correct one of them in the Segmentations module"
            ).format(name=segment.GetName(), organ=organ.name)
        )
