"""The organ table: the nine, their codes, partners and the JSON form."""

from __future__ import annotations

import math

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, Organ, OrganSet


def test_the_nine_in_their_fixed_order():
    assert NINE.names == (
        "left lung", "right lung", "spinal cord", "esophagus", "liver",
        "left kidney", "right kidney", "aorta", "trachea",
    )  # fmt: skip
    assert NINE.labels == tuple(range(1, 10))
    assert [organ.code for organ in NINE] == [
        "39607008", "39607008", "2748008", "32849002", "10200004",
        "64033007", "64033007", "15825003", "44567001",
    ]  # fmt: skip


def test_sides_have_codes_partners_and_colours_of_their_own():
    left, right = NINE.by_name("left kidney"), NINE.by_name("right_kidney")
    assert (left.modifier_code, right.modifier_code) == ("7771000", "24028007")
    assert (left.partner, right.partner) == ("right kidney", "left kidney")
    assert NINE.by_name("Aorta").modifier_code is None
    for one, other in (("left lung", "right lung"), ("left kidney", "right kidney")):
        assert math.dist(NINE.by_name(one).rgb, NINE.by_name(other).rgb) > 60
    assert len({organ.rgb for organ in NINE}) == 9


def test_swapping_left_and_right_twice_changes_nothing():
    swap = NINE.mirror_partners()
    assert swap == (1, 0, 2, 3, 4, 6, 5, 7, 8)
    assert [swap[channel] for channel in swap] == list(range(9))


def test_names_keys_and_subsets():
    assert NINE.by_name("LEFT LUNG") is NINE[0] is NINE.by_name("left_lung")
    assert NINE[0].key == "left_lung"
    assert NINE.subset(["trachea", "left_lung", "trachea"]) == [0, 8]
    with pytest.raises(SegMateError, match="unknown organ 'spleen'.*left lung, right lung.*trachea"):
        NINE.subset(["spleen"])
    for wrong in ("liver", []):
        with pytest.raises(SegMateError, match="expected a list of names"):
            NINE.subset(wrong)


def test_only_keeps_labels_and_unpairs_who_lost_the_partner():
    few = NINE.only(NINE.subset(["left lung", "left kidney", "right kidney"]))
    assert few.labels == (1, 6, 7)
    assert [organ.partner for organ in few] == [None, "right kidney", "left kidney"]
    assert few.mirror_partners() == (None, 2, 1)


def test_json_round_trip():
    assert OrganSet.from_list(NINE.to_list()) == NINE


def test_code_and_meaning_are_missing_together_or_not_at_all():
    row = {**NINE.to_list()[4], "code": None, "meaning": None}
    (organ,) = OrganSet.from_list([row])
    assert (organ.name, organ.code, organ.meaning) == ("liver", None, None)
    for half in ({"code": "10200004"}, {"meaning": "Liver"}, {"code": ""}):
        with pytest.raises(SegMateError, match="name, code and meaning"):
            OrganSet.from_list([{**row, **half}])


def changed(**values) -> list[dict]:
    return [{**NINE.to_list()[2], **values}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        ({"a": 1}, "is dict"),
        ([{"name": "liver"}], "a row of the organ table has"),
        ([3], "a row of the organ table has 3"),
        (changed(extra=1), "a row of the organ table has"),
        (changed(name=" "), "wrong name"),
        (changed(label=0), "wrong label"),
        (changed(label=256), "wrong label"),
        (changed(label=True), "wrong label"),
        (changed(modifier="upper"), "wrong modifier"),
        (changed(rgb=[1, 2]), "wrong rgb"),
        (changed(rgb=[1, 2, 300]), "wrong rgb"),
        (changed(rgb=[1, 2, 3.5]), "wrong rgb"),
        (changed(partner=4), "wrong partner"),
        (changed(partner="elsewhere"), "expected 'elsewhere' to be in the table"),
        (NINE.to_list()[2:3] * 2, "the name spinal_cord twice"),
        ([NINE.to_list()[2], {**NINE.to_list()[3], "label": 3}], "the label 3 twice"),
    ],
)
def test_impossible_tables_are_refused(rows, message):
    with pytest.raises(SegMateError, match=message):
        OrganSet.from_list(rows)


def test_an_empty_set_is_refused():
    with pytest.raises(SegMateError, match="is empty"):
        OrganSet(())


def test_other_organs_are_welcome():
    spleen = Organ("spleen", 200, "78961009", "Spleen", None, (157, 108, 162))
    assert OrganSet((spleen,)).by_name("spleen").label == 200
