"""Does a result look like a patient? Warnings about organs on a wrong side, of a wrong size or in pieces.

Takes canonical labels (K, J, I), their affine to RAS mm and the OrganSet, gives sentences. Situs inversus,
transplanted kidneys and splenomegaly exist: nothing here ever changes a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.label_sample import LabelSample
from SegMateCore.organs import Organ, OrganSet

# A wrong order by less than this is none: a trachea may touch the midline.
MARGIN_MM = 5.0
# Organs in a grid narrower than this are not measured: it shows no adult's trunk.
NARROWEST_MM = 200.0
LARGEST_SPACING_MM = 10.0
# An organ of which less than this is in one piece is in pieces.
SMALLEST_SHARE = 0.8
_NAMED_AT_MOST = 3

# What is wrong, the axis (right, anterior, superior) that tells, and the sign of the offset that is expected.
_WORDS = {
    "right": ("on the left of", 0, 1), "left": ("on the right of", 0, -1),
    "behind": ("in front of", 1, -1), "above": ("below", 2, 1),
}  # fmt: skip
# The middle of the body.
_MIDDLE = "spinal cord"
_CAUSES = (
    "situs inversus, or a header with a wrong orientation",
    "a header that has front and back swapped, or a wrong label",
    "a header that has top and bottom swapped, or a wrong label",
)


@dataclass(frozen=True)
class Place:
    """Where an organ is expected: `side` ("right", "left", "behind", "above") of each of `others`.

    in_slices: compared slice by slice, for what runs along the body.
    """

    organ: str
    side: str
    others: tuple[str, ...]
    in_slices: bool = False


# Gray's Anatomy, 42nd edition, on the surface anatomy and the relations of each organ.
PLACES = (
    Place("liver", "right", ("spinal cord",)),
    Place("spleen", "left", ("spinal cord", "liver")),
    Place("left lung", "left", ("spinal cord",)),
    Place("right lung", "right", ("spinal cord",)),
    Place("left kidney", "left", ("spinal cord",)),
    Place("right kidney", "right", ("spinal cord",)),
    Place("trachea", "left", ("right lung",), in_slices=True),
    Place("trachea", "right", ("left lung",), in_slices=True),
    Place("esophagus", "left", ("right lung",), in_slices=True),
    Place("esophagus", "right", ("left lung",), in_slices=True),
    Place("aorta", "left", ("right lung",), in_slices=True),
    Place("aorta", "right", ("left lung",), in_slices=True),
    Place("esophagus", "behind", ("trachea",), in_slices=True),
    Place("inferior vena cava", "right", ("aorta",), in_slices=True),
    Place("spinal cord", "behind", ("trachea", "esophagus", "aorta", "liver"), in_slices=True),
    Place("left lung", "above", ("liver", "left kidney", "right kidney")),
    Place("right lung", "above", ("liver", "left kidney", "right kidney")),
    Place("trachea", "above", ("left lung", "right lung", "liver", "left kidney", "right kidney")),
)

# Volumes outside these are unusual for an adult, ml. Organs of the reference man and woman (ICRP Publication
# 89, 2002: liver 1800 and 1400 g, a kidney 155 and 138, spleen 150 and 130, heart with blood 840 and 620,
# pancreas 140 and 120, esophagus 40 and 35), of CT (liver 1281 +- 219 ml, spleen 195 +- 78: Jasper 2019, doi
# 10.7860/JCDR/2019/41932.13038; a kidney of men 177 +- 34, of women 146 +- 28: Kwon 2008, Korean J Nephrol
# 27:659; the right lung is 54 % of both: Yamada 2020, PMC7490509) and airways (total lung capacity 7.0 and
# 5.0 l, at the end of a quiet breath 3.3 and 2.7 l, trachea 91 mm by 16.5 mm: ICRP Publication 66, 1994),
# widened to about a third and three times for breath, build and disease.
ADULT_ML = {
    "left lung": (300, 5000), "right lung": (350, 5500), "liver": (300, 5000), "spleen": (30, 2000),
    "left kidney": (30, 700), "right kidney": (30, 700), "heart": (200, 2500), "pancreas": (20, 400),
    "esophagus": (8, 200), "trachea": (6, 120),
}  # fmt: skip


def implausibilities(
    labels: np.ndarray, affine: np.ndarray, organs: OrganSet, whole: bool = True,
    kept: OrganSet | None = None,
) -> list[str]:  # fmt: skip
    """Sentences about what is unusual.

    whole: False where labels were kept only inside a region, so that sizes and pieces say nothing. kept: the
    organs that the result will hold, None for all; the others only help to tell the places.
    """
    sample = LabelSample(labels, affine)
    shown = {organ.name: organ for organ in organs if sample.shows(organ.label)}
    warnings = _misplaced(sample, shown)
    if whole:
        measured = {name: organ for name, organ in shown.items() if kept is None or name in kept.names}
        warnings += _unusual_volumes(sample, measured)
        warnings += _in_pieces(sample, measured)
    return warnings


def _misplaced(sample: LabelSample, shown: dict[str, Organ]) -> list[str]:
    """One sentence for each direction in which something is wrong."""
    found: tuple[list[str], ...] = ([], [], [])
    pairs = [
        Place(organ.name, "left", (organ.partner,))
        for organ in shown.values()
        if organ.modifier == "left" and organ.partner
    ]
    for place in (*pairs, *PLACES):
        words, axis, sign = _WORDS[place.side]
        if place.organ not in shown:
            continue
        for other in place.others:
            if other not in shown:
                continue
            label, label_of_other = shown[place.organ].label, shown[other].label
            compare = sample.offset_in_slices_mm if place.in_slices else sample.offset_mm
            offset_mm = compare(label, label_of_other)
            if offset_mm is not None and sign * offset_mm[axis] < -MARGIN_MM:
                where = f"{words} the {other}"
                if axis == 0 and other == _MIDDLE:
                    where = words.replace("the", "the patient's").removesuffix(" of")
                found[axis].append(f"the {place.organ} lies {where}")
    return [f"{_listed(texts)}: {cause}" for texts, cause in zip(found, _CAUSES) if texts]


def _listed(texts: list[str]) -> str:
    more = len(texts) - _NAMED_AT_MOST
    return "; ".join(texts[:_NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")


def _unusual_volumes(sample: LabelSample, shown: dict[str, Organ]) -> list[str]:
    """Of organs that the image shows whole, in a field of view that holds an adult."""
    extent_mm = sample.extent_mm
    spacing_mm = [length / size for length, size in zip(extent_mm, sample.voxels.shape[::-1])]
    if min(extent_mm[:2]) < NARROWEST_MM or max(spacing_mm) > LARGEST_SPACING_MM:
        return []
    warnings = []
    for name, (low, high) in ADULT_ML.items():
        if name not in shown or sample.is_cut(shown[name].label):
            continue
        volume_ml = sample.volume_ml(shown[name].label)
        if not low <= volume_ml <= high:
            what = "small" if volume_ml < low else "large"
            warnings.append(
                f"the {name} measures {volume_ml:.0f} ml, which is {what} for an adult"
                f" ({low} to {high} ml): look whether all of it, and nothing else, is labelled"
            )
    return warnings


def _in_pieces(sample: LabelSample, shown: dict[str, Organ]) -> list[str]:
    warnings = []
    for name, organ in shown.items():
        share = sample.largest_share(organ.label)
        if share < SMALLEST_SHARE:
            warnings.append(
                f"the {name} is in pieces, the largest with {share:.0%} of it: look for missing parts and"
                " for what does not belong to it"
            )
    return warnings
