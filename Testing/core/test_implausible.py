"""Warnings about results: none on true anatomy, one for each way to hold a patient wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.data.datasets.organ_names import known_organs
from SegMateCore.data.phantom import make_anatomy
from SegMateCore.implausible import ADULT_ML, PLACES, implausibilities
from SegMateCore.label_sample import LabelSample
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

SIDES, FRONT, TOP = "situs inversus", "front and back", "top and bottom"
MM4 = np.diag([4.0, 4.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def torso() -> Volume:
    anatomy = make_anatomy(3, 4.0, with_pathology=False)
    return Volume(anatomy.labels, anatomy.affine).canonical()


def warned(labels: np.ndarray, affine: np.ndarray, whole: bool = True) -> list[str]:
    canonical = Volume(np.ascontiguousarray(labels), affine).canonical()
    return implausibilities(canonical.voxels, canonical.affine, NINE, whole)


def block(labels: np.ndarray, organ: str, *place: slice) -> None:
    labels[place] = NINE.by_name(organ).label


class TestTrueAnatomy:
    @pytest.mark.parametrize("seed", [3, 7])
    def test_phantoms_give_no_warning(self, seed):
        anatomy = make_anatomy(seed, 4.0, with_pathology=False)
        assert warned(anatomy.labels, anatomy.affine) == []

    @pytest.mark.parametrize("field", ["chest", "abdomen"])
    def test_nor_do_parts_of_the_body(self, field):
        anatomy = make_anatomy(7, 4.0, field=field)
        assert warned(anatomy.labels, anatomy.affine) == []

    @pytest.mark.parametrize(
        "case",
        ["lidc_0001", "ts_dicom_20slices", "acil_ct64", "elastix_lung_small", "dcmqi_liver_3slices"],
    )
    def test_nor_do_references_of_real_cts(self, shared, case):
        labels = Segmentation.read(shared / "data" / case / "labels.nii.gz", NINE)
        assert warned(labels.labels, labels.affine) == []

    @given(st.integers(0, 180), st.integers(10, 60))
    def test_nor_do_slabs_of_the_body(self, torso, first, count):
        """Slices are missing above and below as in any scan: what is cut is not called small or broken."""
        slab = torso.voxels[min(first, len(torso.voxels) - count) :][:count]
        assert warned(slab, torso.affine) == []


class TestWrongOrientation:
    @pytest.mark.parametrize(("axis", "cause"), [(2, SIDES), (1, FRONT), (0, TOP)])
    def test_mirrored_voxels_are_noticed(self, torso, axis, cause):
        found = warned(np.flip(torso.voxels, axis), torso.affine, whole=False)
        assert len(found) == 1 and cause in found[0]

    @pytest.mark.parametrize(("axis", "cause"), [(2, SIDES), (1, FRONT), (0, TOP)])
    def test_also_those_of_a_real_ct(self, shared, axis, cause):
        reference = Segmentation.read(shared / "data/lidc_0001/labels_3mm.nii.gz", NINE)
        canonical = reference.as_volume().canonical()
        found = warned(np.flip(canonical.voxels, axis), canonical.affine)
        assert len(found) == 1 and cause in found[0]

    def test_turned_about_the_long_axis_both_are_named(self, torso):
        found = warned(torso.voxels[:, ::-1, ::-1], torso.affine)
        assert [SIDES in found[0], FRONT in found[1]] == [True, True] and len(found) == 2

    def test_mirrored_anatomy_is_noticed_whatever_the_storage(self):
        anatomy = make_anatomy(3, 6.0, mirrored=True)
        # The phantom's lungs keep the side they lie on; the liver does not.
        found = warned(anatomy.labels, anatomy.affine)
        assert any("the liver lies on the patient's left" in text for text in found)

    def test_one_organ_alone_on_the_wrong_side_of_the_cord(self):
        labels = np.zeros((20, 40, 40), np.uint8)
        block(labels, "spinal cord", slice(None), slice(5, 8), slice(19, 22))
        block(labels, "left kidney", slice(5, 15), slice(10, 20), slice(30, 38))
        (found,) = warned(labels, MM4)
        assert found.startswith("the left kidney lies on the patient's right: situs inversus, or")

    def test_what_is_in_no_common_slice_is_not_compared(self):
        labels = np.zeros((20, 40, 40), np.uint8)
        block(labels, "trachea", slice(12, 20), slice(5, 10), slice(18, 22))
        block(labels, "spinal cord", slice(0, 10), slice(20, 24), slice(18, 22))
        assert warned(labels, MM4) == []
        block(labels, "spinal cord", slice(10, 20), slice(20, 24), slice(18, 22))
        assert "the spinal cord lies in front of the trachea" in warned(labels, MM4)[0]

    def test_rules_name_organs_and_sides_that_exist(self):
        named = set(ADULT_ML).union(*[{place.organ, *place.others} for place in PLACES])
        assert named <= set(known_organs().names)


class TestSizes:
    def liver_of(self, millilitres: float, spacing_mm: float = 4.0, at: int = 20) -> list[str]:
        labels = np.zeros((80, 80, 80), np.uint8)
        edge = round((millilitres * 1000) ** (1 / 3) / spacing_mm)
        block(labels, "liver", *[slice(at, at + edge)] * 3)
        return warned(labels, np.diag([spacing_mm] * 3 + [1.0]))

    def test_a_liver_of_usual_size(self):
        assert self.liver_of(1500) == []

    @pytest.mark.parametrize(("millilitres", "size"), [(150, "small"), (9000, "large")])
    def test_unusual_sizes_are_told_with_the_figures(self, millilitres, size):
        (found,) = self.liver_of(millilitres)
        assert f"{size} for an adult" in found and "(300 to 5000 ml)" in found and "ml, which is" in found

    def test_a_liver_that_the_image_cuts_off_is_not_measured(self):
        assert self.liver_of(150, at=0) == []

    def test_nor_one_in_a_field_of_view_that_holds_no_adult(self):
        assert self.liver_of(10, spacing_mm=2.0) == []

    def test_nor_one_inside_a_region(self):
        labels = np.zeros((80, 80, 80), np.uint8)
        block(labels, "liver", *[slice(30, 34)] * 3)
        assert warned(labels, MM4) != [] and warned(labels, MM4, whole=False) == []


class TestPieces:
    def two_kidneys(self, apart_mm: int, at: int = 20) -> list[str]:
        """In one: two blocks of 48 x 48 x 48 mm, one above the other."""
        labels = np.zeros((80, 80, 80), np.uint8)
        block(labels, "left kidney", slice(at, at + 12), slice(30, 42), slice(30, 42))
        above = at + 12 + apart_mm // 4
        block(labels, "left kidney", slice(above, above + 12), slice(30, 42), slice(30, 42))
        return warned(labels, MM4)

    def test_an_organ_in_pieces_is_told(self):
        (found,) = self.two_kidneys(60)
        assert "the left kidney is in pieces, the largest with 50% of it" in found

    def test_but_not_of_an_organ_that_the_result_does_not_hold(self):
        labels = np.zeros((80, 80, 80), np.uint8)
        block(labels, "left kidney", slice(20, 32), slice(30, 34), slice(30, 34))
        block(labels, "left kidney", slice(50, 62), slice(30, 34), slice(30, 34))

        def told(name: str) -> list[str]:
            return implausibilities(labels, MM4, NINE, kept=NINE.only([NINE.index(name)]))

        assert ["measures" in text for text in told("left kidney")] == [True, False]
        assert told("liver") == []

    def test_a_gap_of_a_collapsed_part_is_none(self):
        assert self.two_kidneys(12) == []

    def test_pieces_that_may_meet_outside_count_as_one(self):
        labels = np.zeros((80, 80, 80), np.uint8)
        block(labels, "aorta", slice(40, 80), slice(30, 36), slice(30, 36))
        block(labels, "aorta", slice(40, 80), slice(60, 66), slice(30, 36))
        assert warned(labels, MM4) == []
        labels[-1] = 0
        assert any("aorta is in pieces" in text for text in warned(labels, MM4))


def test_the_sample_measures_what_whole_arrays_give():
    rng = np.random.default_rng(0)
    labels = np.zeros((300, 40, 300), np.uint8)
    labels[50:250, 5:35, 40:260] = 5
    labels[rng.random(labels.shape) < 0.1] = 0
    affine = np.array([[0.8, 0.1, 0, 7], [-0.1, 0.8, 0, -9], [0, 0, 1.5, 3], [0, 0, 0, 1.0]])
    sample = LabelSample(labels, affine)
    assert sample.voxels.shape == (100, 40, 150)
    true_ml = (labels == 5).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    assert sample.volume_ml(5) == pytest.approx(true_ml, rel=0.02)
    labels[:, :, 40:] = np.where(labels[:, :, 40:] > 0, 5, 1)
    sample = LabelSample(labels, affine)
    centres = [affine[:3] @ [*np.argwhere(labels == label).mean(axis=0)[::-1], 1] for label in (5, 1)]
    np.testing.assert_allclose(sample.offset_mm(5, 1), centres[0] - centres[1], atol=4.5)
