"""Classes of public networks: the table's facts against other tables, the grouping into the nine, all."""

from __future__ import annotations

import json
import math
import re
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SegMateCore.class_table import organ_sets_of, organs_of, words_of
from SegMateCore.data.datasets.organ_names import known_organs
from SegMateCore.errors import SegMateError
from SegMateCore.organs import LARGEST_LABEL, NINE, OrganSet
from SegMateCore.terminology import codes_in, terminology_entry

TABLE = json.loads(resources.files("SegMateCore").joinpath("resources/classes.json").read_text("utf-8"))
ROWS = TABLE["classes"]
# The parts of TotalSegmentator's 1.5 mm networks that hold the nine: numbers in their own label maps.
ORGANS_PART = (
    "background spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right"
    " adrenal_gland_left lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right"
    " lung_middle_lobe_right lung_lower_lobe_right esophagus trachea"
).split()
CARDIAC_PART = ["background", "heart", "aorta", "pulmonary_vein"]
MUSCLE_PART = ["background", "humerus_left", "humerus_right", "spinal_cord", "brain"]


def classes_of(version: str) -> list[str]:
    """Channel names of TotalSegmentator's label map of that version, background first."""
    numbers = {row["numbers"][version]: row["class"] for row in ROWS if version in row["numbers"]}
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    return ["background", *(numbers[number] for number in sorted(numbers))]


def test_versions_have_their_published_classes():
    v1, v2, v3 = (classes_of(version) for version in ("v1", "v2", "v3"))
    assert (len(v1), len(v2), len(v3)) == (105, 118, 118)
    # Numbers as the networks' documentation gives them.
    assert [v2.index(name) for name in ("kidney_right", "liver", "aorta", "spinal_cord")] == [2, 5, 52, 79]
    known = {"aorta": 7, "lung_upper_lobe_left": 13, "esophagus": 42, "trachea": 43, "face": 93}
    assert {name: v1.index(name) for name in known} == known
    assert [(a, b) for a, b in zip(v2, v3) if a != b] == [("vertebrae_S1", "vertebrae_L6")]


def test_codes_are_snomed_numbers_with_a_true_check_digit():
    for row in ROWS:
        assert (row["code"] is None) == (row["meaning"] is None) == ("listed_in" not in row), row["class"]
        assert row["code"] is None or (row["code"].isdecimal() and _verhoeff(row["code"])), row["class"]
    assert _verhoeff("39607008") and not _verhoeff("39607080")
    uncoded = {row["class"] for row in ROWS if row["code"] is None}
    assert uncoded == {"kidney_cyst_left", "kidney_cyst_right", "vertebrae_L6"}


def test_codes_mean_the_same_in_dicom():
    """DICOM PS3.16 by another project's transcript of it; private there, but nowhere else offline."""
    from pydicom.sr._concepts_dict import concepts

    meanings: dict[str, set[str]] = {}
    for codes in concepts["SCT"].values():
        for code, (meaning, _) in codes.items():
            meanings.setdefault(code, set()).add(meaning)
    for row in ROWS:
        if "dicom" not in row.get("listed_in", ()):
            continue
        own = _telling(row["meaning"]) | _telling(row["name"])
        assert any(_telling(meaning) & own for meaning in meanings[row["code"]]), row["class"]
    assert sum("dicom" in row.get("listed_in", ()) for row in ROWS) > 80


def test_sources_are_named():
    for row in ROWS:
        assert set(row.get("listed_in", ())) <= set(TABLE["sources"])
    lonely = {row["class"].rsplit("_", 1)[0] for row in ROWS if len(row.get("listed_in", "ab")) < 2}
    assert lonely == {"gluteus_maximus", "gluteus_minimus", "autochthon", "iliopsoas"}


def test_left_and_right_point_at_each_other_and_share_their_code():
    by_name = {row["name"]: row for row in ROWS}
    pairs = [(row, by_name[row["partner"]]) for row in ROWS if row["partner"] is not None]
    # 12 ribs, 5 muscles, 5 bones, 5 vessels, lung, its upper and lower lobe, kidney, its cyst, adrenal gland.
    assert len(pairs) == 2 * (12 + 5 + 5 + 5 + 6)
    for row, partner in pairs:
        assert partner["partner"] == row["name"] != partner["name"]
        assert (row["code"], row["meaning"]) == (partner["code"], partner["meaning"])
        assert {row["modifier"], partner["modifier"]} == {"left", "right"}
        assert row["modifier"] in row["class"].split("_") and row["modifier"] in row["name"].split()
    coded = [(row["code"], row["modifier"]) for row in ROWS if row["code"] is not None]
    assert len(set(coded)) == len(coded)


def test_the_table_agrees_with_the_project_s_own_organs():
    by_name = {row["name"]: row for row in ROWS}
    for organ in known_organs():
        row = by_name[organ.name]
        given = (row["code"], row["meaning"], row["modifier"], tuple(row["rgb"]), row["partner"])
        assert given == (organ.code, organ.meaning, organ.modifier, organ.rgb, organ.partner)


def test_names_and_colours_are_distinct():
    organs = organs_of([row["class"] for row in ROWS])
    assert len({words_of(name) for row in ROWS for name in (row["class"], row["name"])}) >= len(ROWS)
    assert len({organ.rgb for organ in organs}) == len(organs)
    assert len({organ.key for organ in organs}) == len(organs)


def test_the_nine_of_version_2():
    sets = organ_sets_of(classes_of("v2"))
    assert list(sets) == ["nine", "all"]
    assert sets["nine"].organs == NINE
    assert sets["nine"].grouping == ({
        "left lung": [10, 11], "right lung": [12, 13, 14], "spinal cord": [79], "esophagus": [15],
        "liver": [5], "left kidney": [3], "right kidney": [2], "aorta": [52], "trachea": [16],
    },)  # fmt: skip


def test_the_nine_without_a_spinal_cord():
    nine = organ_sets_of(classes_of("v1"))["nine"]
    assert nine.organs == NINE.only([0, 1, 3, 4, 5, 6, 7, 8])
    assert nine.organs.labels == (1, 2, 4, 5, 6, 7, 8, 9)
    assert nine.grouping[0]["left lung"] == [13, 14]
    assert "spinal cord" not in nine.grouping[0]


def test_all_has_every_class_with_its_channel_as_label():
    names = classes_of("v2")
    chosen = organ_sets_of(names)["all"]
    assert len(chosen.organs) == 117
    assert chosen.organs.labels == tuple(range(1, 118))
    for channel, organ in enumerate(chosen.organs, start=1):
        assert chosen.grouping[0][organ.name] == [channel]
    assert chosen.organs.by_name("left lung upper lobe").label == names.index("lung_upper_lobe_left")
    assert chosen.organs.by_name("left kidney").code == NINE.by_name("left kidney").code


def test_partners_of_all_mirror_twice_to_themselves():
    organs = organ_sets_of(classes_of("v2"))["all"].organs
    swap = organs.mirror_partners()
    assert swap[organs.index("left rib 7")] == organs.index("right rib 7")
    assert swap[organs.index("left kidney cyst")] == organs.index("right kidney cyst")
    assert all(swap[swap[channel]] == channel for channel in range(len(organs)))
    without = organs_of(["kidney_left", "rib_left_1", "liver"])
    assert without.mirror_partners() == (None, None, 2)


def test_three_networks_share_the_nine():
    sets = organ_sets_of(ORGANS_PART, CARDIAC_PART, MUSCLE_PART)
    nine = sets["nine"]
    assert nine.organs == NINE
    assert nine.grouping[1:] == ({"aorta": [2]}, {"spinal cord": [3]})
    assert nine.grouping[0]["right lung"] == [12, 13, 14]
    everything = sets["all"]
    assert len(everything.organs) == 16 + 3 + 4
    assert everything.grouping[1] == {"heart": [1], "aorta": [2], "pulmonary vein": [3]}
    assert everything.organs.by_name("brain").label == 23


def test_of_a_class_in_two_networks_the_first_wins():
    parts = ["background", "liver", "oesophagus"], ["background", "spleen", "Liver", "esophagus"]
    sets = organ_sets_of(*parts)
    assert sets["all"].organs.names == ("liver", "esophagus", "spleen")
    assert sets["all"].grouping == ({"liver": [1], "esophagus": [2]}, {"spleen": [1]})
    assert sets["nine"].grouping == ({"esophagus": [2], "liver": [1]}, {})


def test_a_lung_needs_all_of_its_lobes_which_may_be_spread():
    upper, lower = ["background", "lung_upper_lobe_left"], ["background", "lung_lower_lobe_left"]
    assert list(organ_sets_of(upper)) == ["all"]
    nine = organ_sets_of(upper, lower)["nine"]
    assert nine.organs.names == ("left lung",)
    assert nine.grouping == ({"left lung": [1]}, {"left lung": [1]})
    whole = organ_sets_of(["background", "lung_left", *upper[1:], *lower[1:]])["nine"]
    assert whole.grouping == ({"left lung": [1]},)


def test_how_a_name_is_written_does_not_matter():
    sets = organ_sets_of(["Background", "Left Lung", "lung right", "OESOPHAGUS", "Spinal-Cord", "aorta"])
    assert sets["nine"].organs.names == ("left lung", "right lung", "spinal cord", "esophagus", "aorta")
    assert list(sets) == ["nine", "all"]
    assert sets["all"].organs.names == ("left lung", "right lung", "esophagus", "spinal cord", "aorta")


def test_which_set_comes_first():
    assert list(organ_sets_of(["background", *(organ.key for organ in NINE)])) == ["nine"]
    assert list(organ_sets_of(["background", "liver", "liver tumour"])) == ["all", "nine"]
    assert list(organ_sets_of(["background", "tumour"])) == ["all"]


def test_regions_have_no_background_channel():
    assert organ_sets_of(["whole_tumour", "tumour_core"])["all"].grouping == (
        {"whole tumour": [0], "tumour core": [1]},
    )


def test_unknown_classes_get_rows_without_code():
    names = ["liver", "Lesion_left", "lesion right", "implant", "left_stent"]
    organs = organs_of(names)
    assert organs.names == ("liver", "Lesion left", "lesion right", "implant", "left stent")
    assert [organ.code for organ in organs][1:] == [None] * 4
    assert [organ.modifier for organ in organs] == [None, "left", "right", None, "left"]
    assert [organ.partner for organ in organs] == [None, "lesion right", "Lesion left", None, None]
    assert organs.mirror_partners() == (0, 2, 1, 3, None)
    assert organs == organs_of(names)
    assert OrganSet.from_list(json.loads(json.dumps(organs.to_list()))) == organs
    assert codes_in(terminology_entry(organs[1])) is None


def test_colours_of_many_unknown_classes_can_be_told_apart():
    organs = organs_of([*classes_of("v2")[1:], *(f"unknown {number}" for number in range(60))])
    generated = [organ.rgb for organ in organs if organ.name.startswith("unknown")]
    assert len(set(generated)) == 60
    nearest = min(math.dist(a, b) for i, a in enumerate(generated) for b in generated[:i])
    assert nearest > 15
    assert len(organs_of([f"unknown {number}" for number in range(LARGEST_LABEL)])) == LARGEST_LABEL


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["background"], "no class but the background"),
        ([], "no class but the background"),
        (["background", "liver", "Liver "], "the classes Liver , liver, expected different names"),
        (["background", *(f"c{number}" for number in range(256))], "256 classes, expected at most 255"),
    ],
)
def test_refusals(names, expected):
    with pytest.raises(SegMateError, match=expected):
        organ_sets_of(names)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([row["class"] for row in ROWS] + ["stent", "x_left", "x_right"]),
                         unique=True, max_size=12), min_size=1, max_size=3))  # fmt: skip
def test_groupings_use_each_channel_once_and_name_the_right_class(parts):
    class_names = [["background", *names] for names in parts]
    if not any(parts):
        return
    for chosen in organ_sets_of(*class_names).values():
        assert len(chosen.grouping) == len(parts)
        for names, grouping in zip(class_names, chosen.grouping):
            used = [channel for channels in grouping.values() for channel in channels]
            assert len(set(used)) == len(used) and 0 not in used and set(grouping) <= set(chosen.organs.names)
            assert np.all(np.array(used, int) < len(names))
        assert set().union(*chosen.grouping) == set(chosen.organs.names)
    if "all" in organ_sets_of(*class_names):
        found = organ_sets_of(*class_names)["all"]
        assert len(found.organs) == len({name for names in parts for name in names})


def _telling(text: str) -> set[str]:
    """The words of a meaning that say what it is about."""
    return set(re.findall(r"[a-z0-9]+", text.lower())) - {"structure", "of", "bone", "body", "left", "right"}


def _verhoeff(digits: str) -> bool:
    """Whether the last digit is the check digit of the others: Verhoeff's code over the dihedral group D5."""
    permutation = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for position, digit in enumerate(int(digit) for digit in reversed(digits)):
        for _ in range(position % 8):
            digit = permutation[digit]
        if check < 5:
            check = (check + digit) % 5 if digit < 5 else (check + digit) % 5 + 5
        else:
            check = (check - digit) % 5 + 5 if digit < 5 else (check - digit) % 5
    return check == 0
