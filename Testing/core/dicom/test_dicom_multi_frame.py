"""Enhanced CT and legacy converted CT: many slices in one file."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless
from refusals import refused
from small_dicom import COUNT, ORIGIN, STEP_MM, stored, write_multi_frame, write_series, write_slice

from SegMateCore.dicom import list_series, open_series
from SegMateCore.volume import Volume


@pytest.fixture
def single(tmp_path) -> Volume:
    """The same slices as single files."""
    return Volume.read(write_series(tmp_path / "single"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)])
def test_frames_are_sorted_by_position(tmp_path, single, order, legacy):
    path = write_multi_frame(tmp_path / "ct.dcm", order, legacy)
    series = open_series(path)
    volume = series.volume()
    np.testing.assert_array_equal(volume.voxels, single.voxels)
    np.testing.assert_allclose(volume.affine, single.affine)
    assert [one.frame for one in series.instances] == [order.index(k) + 1 for k in range(COUNT)]
    assert {one.sop_instance_uid for one in series.instances} == {"1.2.3.99"}
    (data,) = series.datasets()
    assert data.NumberOfFrames == COUNT and "PixelData" not in data


def test_frames_equal_highdicoms_volume(tmp_path):
    """A second road to the geometry and the values."""
    highdicom = pytest.importorskip("highdicom")
    path = write_multi_frame(tmp_path / "ct.dcm", (2, 0, 1, 5, 3, 4), slopes={2: 2})
    data = pydicom.dcmread(path)
    data.FrameOfReferenceUID, data.StudyInstanceUID = "1.2", "1.1"
    data.save_as(path)
    other = highdicom.imread(path).get_volume(apply_real_world_transform=False, apply_modality_transform=True)
    ours = Volume.read(path)
    to_index = np.linalg.inv(other.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    for k in range(COUNT):
        for j, i in ((0, 0), (3, 4), (1, 2)):
            place = to_index @ ours.affine @ [i, j, k, 1]
            index = tuple(np.round(place[:3]).astype(int))
            np.testing.assert_allclose(place[:3], index, atol=1e-4)
            assert other.array[index] == ours.voxels[k, j, i]


def test_rescaling_per_frame(tmp_path):
    volume = Volume.read(write_multi_frame(tmp_path / "ct", slopes={1: 2, 4: "0.5"}))
    np.testing.assert_array_equal(volume.voxels[0], stored(0) * 2.0 - 1024)
    np.testing.assert_array_equal(volume.voxels[3], stored(3) * 0.5 - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames(tmp_path, single, syntax):
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    order = (4, 2, 0, 1, 3, 5)
    (tmp_path / "one").mkdir()
    frames = []
    for k in order:
        data = pydicom.dcmread(write_slice(tmp_path / "one", k))
        data.compress(syntax)
        frames.append(next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)))
    path = write_multi_frame(tmp_path / "ct.dcm", order, frames=frames, syntax=syntax)
    np.testing.assert_array_equal(Volume.read(path).voxels, single.voxels)


def test_a_series_in_several_multi_frame_files(tmp_path, single):
    """A concatenation, and frames of two files between each other."""
    (tmp_path / "parts").mkdir()
    write_multi_frame(tmp_path / "parts" / "a.dcm", (4, 0, 2), SOPInstanceUID="1.2.3.71")
    write_multi_frame(tmp_path / "parts" / "b.dcm", (1, 3, 5), SOPInstanceUID="1.2.3.72")
    series = open_series(tmp_path / "parts")
    np.testing.assert_array_equal(series.volume().voxels, single.voxels)
    assert [data.SOPInstanceUID for data in series.datasets()] == ["1.2.3.71", "1.2.3.72"]
    assert [one.frame for one in series.instances] == [2, 1, 3, 2, 1, 3]


def test_a_localizer_frame_is_left_out_and_said(tmp_path, single):
    groups = {
        3: {
            "CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]},
            "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        }
    }
    path = write_multi_frame(tmp_path / "ct", (0, 1, 0, 2, 3, 4, 5), groups=groups)
    series = open_series(path)
    np.testing.assert_array_equal(series.volume().voxels, single.voxels)
    assert series.warnings == ("1 localizers in the series were left out",)


def test_nothing_but_localizer_frames(tmp_path):
    kind = {"CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]}}
    path = write_multi_frame(tmp_path / "ct", groups=dict.fromkeys(range(1, COUNT + 1), kind))
    refused(path, "all slices of the series are localizers")
    assert "localizers" in list_series(tmp_path)[0].problem


def test_several_phases_are_refused_by_frame(tmp_path):
    order = (*range(COUNT), *range(COUNT))
    frames = [(stored(k) + (place >= COUNT)).tobytes() for place, k in enumerate(order)]
    refused(write_multi_frame(tmp_path / "ct", order, frames=frames), "frame 7 and ct, frame 1", "phases")


@pytest.mark.parametrize(
    "macros, words",
    [
        ({"PlanePositionSequence": None}, "frame 2 lacks ImagePositionPatient"),
        ({"PixelValueTransformationSequence": None}, "frame 2 lacks RescaleSlope"),
        (
            {"PlanePositionSequence": {"ImagePositionPatient": [*ORIGIN[:2], ORIGIN[2] + 0.7 * STEP_MM]}},
            "uneven distances",
        ),
    ],
)
def test_frames_that_lack_or_contradict(tmp_path, macros, words):
    refused(write_multi_frame(tmp_path / "ct", groups={2: macros}), words)


@pytest.mark.parametrize(
    "frames, words",
    [
        (9, "announces 9 frames and describes 6"),
        (60_000, "2400000 bytes, and has"),
        (-3, "-3 as NumberOfFrames"),
    ],
)
def test_more_frames_than_there_are(tmp_path, frames, words):
    refused(write_multi_frame(tmp_path / "ct", NumberOfFrames=frames), words)
    (found,) = list_series(tmp_path)
    assert words in found.problem and found.count == max(frames, 1) and found.spacing_mm is None
