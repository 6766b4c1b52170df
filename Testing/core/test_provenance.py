"""What a segmentation file says about its making, whatever characters that has."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

PROVENANCE = {"checkpoint": 'my "best" \u00e9 C:\\new\\n', "warnings": ["two\nlines"]}


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.seg.nrrd", "a.nrrd"])
def test_provenance_survives_quotes_backslashes_and_line_ends(tmp_path, name):
    Segmentation(np.ones((2, 3, 4), np.uint8), np.eye(4), NINE, PROVENANCE).write(tmp_path / name)
    assert read_provenance(tmp_path / name) == (NINE, PROVENANCE)
    assert Segmentation.read(tmp_path / name).provenance == PROVENANCE


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd"])
def test_a_ct_has_none(tmp_path, name):
    Volume(np.zeros((2, 3, 4), np.int16), np.eye(4)).write(tmp_path / name)
    assert read_provenance(tmp_path / name) == (NINE, {})


@pytest.mark.parametrize("name", ["a.nii.gz", "a.seg.nrrd"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text("no image")
    with pytest.raises(SegMateError, match="not a readable"):
        read_provenance(tmp_path / name)


def test_comments_of_other_programs_in_other_encodings_do_no_harm(tmp_path):
    import nibabel

    image = nibabel.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, "Gr\u00f6\u00dfe".encode("latin-1")))
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert Segmentation.read(tmp_path / "a.nii.gz").provenance == {}


def test_a_mask_of_one_organ_is_read_as_that_organ_only(tmp_path):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1], labels[3] = NINE.by_name("left lung").label, NINE.by_name("right lung").label
    Segmentation(labels, np.eye(4)).write(tmp_path / "organs")
    right = Segmentation.read(tmp_path / "organs" / "right_lung.nii.gz")
    assert right.organs.names == ("right lung",) and right.organs[0].modifier == "right"
    np.testing.assert_array_equal(right.mask("right lung"), labels == NINE.by_name("right lung").label)
