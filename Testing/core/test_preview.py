"""The preview picture: which way round, how long, which slice, and that any volume can be drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.preview import BACKGROUND, VIEWS, best_position, draw_preview, preview_image, slice_of
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

LEFT_LUNG, RIGHT_LUNG, LIVER = (NINE.by_name(name) for name in ("left lung", "right lung", "liver"))


def ras_example(shape=(20, 24, 28), spacing_mm=(2.0, 2.0, 2.0)) -> tuple[Volume, np.ndarray]:
    """A canonical volume: right lung at high i, left lung at low i, both high; liver low on the right."""
    labels = np.zeros(shape, np.uint8)
    depth, rows, columns = (np.arange(size) / size for size in shape)
    k, j, i = np.meshgrid(depth, rows, columns, indexing="ij")
    middle = (j > 0.3) & (j < 0.7)
    labels[(k > 0.5) & (k < 0.9) & middle & (i > 0.6) & (i < 0.9)] = RIGHT_LUNG.label
    labels[(k > 0.5) & (k < 0.9) & middle & (i > 0.1) & (i < 0.4)] = LEFT_LUNG.label
    labels[(k > 0.1) & (k < 0.4) & middle & (i > 0.5) & (i < 0.9)] = LIVER.label
    voxels = np.where(labels > 0, 60, -1000).astype(np.int16)
    affine = np.diag([*spacing_mm, 1.0])
    return Volume(voxels, affine), labels


def drawn(volume: Volume, labels: np.ndarray, **texts) -> np.ndarray:
    segmentation = Segmentation(labels, volume.affine, NINE, {})
    return np.asarray(preview_image(volume, segmentation, **texts)).astype(int)


def centre_of(picture: np.ndarray, rgb, columns: slice) -> np.ndarray:
    """(row, column) of the middle of the outline in this colour within some columns, legend left out."""
    panel_rows = slice(0, picture.shape[0] - 110)
    close = np.abs(picture[panel_rows, columns] - np.asarray(rgb)).sum(axis=2) < 12
    assert close.sum() > 10, f"no outline in {rgb}"
    return np.argwhere(close).mean(axis=0) + (0, columns.start)


def test_the_patients_left_is_on_the_right_of_axial_and_coronal():
    picture = drawn(*ras_example())
    third = picture.shape[1] // 3
    coronal = slice(third, 2 * third)
    left, right = (centre_of(picture, organ.rgb, coronal) for organ in (LEFT_LUNG, RIGHT_LUNG))
    liver = centre_of(picture, LIVER.rgb, coronal)
    assert left[1] > right[1] + 20
    assert liver[0] > right[0] + 20, "the liver is drawn below the lungs"
    axial = slice(0, third)
    assert centre_of(picture, LEFT_LUNG.rgb, axial)[1] > centre_of(picture, RIGHT_LUNG.rgb, axial)[1] + 20


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_marks_name_the_ends_of_the_slice(view):
    """A voxel map of each world direction must fall from the first mark to the second."""
    size = 7
    world = dict(zip("SAR", np.meshgrid(*[np.arange(size)] * 3, indexing="ij")))
    opposite = {"L": "R", "P": "A", "I": "S"}
    left, right, top, bottom = view.marks
    for mark, first, last in ((left, (3, 0), (3, -1)), (top, (0, 3), (-1, 3))):
        direction = opposite.get(mark, mark)
        plane = slice_of(world[direction], view, (3, 3, 3))
        rising = plane[last] > plane[first]
        assert rising == (mark in opposite)
    assert opposite.get(right, right) == opposite.get(left, left)
    assert opposite.get(bottom, bottom) == opposite.get(top, top)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_the_way_of_storing_does_not_change_the_picture(order, flips):
    volume, labels = ras_example()
    columns = [2 - axis for axis in order][::-1]
    affine = volume.affine[:, [*columns, 3]].copy()
    voxels, other = (np.flip(array.transpose(order), flips) for array in (volume.voxels, labels))
    for axis in flips:
        affine[:3, 3] += (voxels.shape[axis] - 1) * affine[:3, 2 - axis]
        affine[:3, 2 - axis] *= -1
    stored = Volume(voxels.copy(), affine)
    assert (drawn(stored, other.copy()) == drawn(volume, labels)).all()


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0), (3.0, 1.5, 1.0)])
def test_millimetres_are_equally_long_in_every_direction(spacing_mm):
    volume, _ = ras_example(spacing_mm=spacing_mm)
    bright = volume.with_voxels(np.full(volume.shape, 500, np.int16))
    picture = drawn(bright, np.zeros(volume.shape, np.uint8))
    regions, _ = ndimage.label((picture > 250).all(axis=2))
    boxes = [box for box in ndimage.find_objects(regions) if (box[1].stop - box[1].start) > 40]
    width, depth, height = (count * mm for count, mm in zip(volume.shape[::-1], spacing_mm))
    sizes_mm = ((depth, width), (height, width), (height, depth))
    assert len(boxes) == 3
    scales = []
    for (rows, columns), (tall_mm, wide_mm) in zip(sorted(boxes, key=lambda box: box[1].start), sizes_mm):
        scales += [(rows.stop - rows.start) / tall_mm, (columns.stop - columns.start) / wide_mm]
    assert scales == pytest.approx([scales[0]] * 6, rel=0.02)


def test_the_slices_show_most_of_the_organs():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[2:5, 2:28, 2:28] = 5  # one large organ low
    labels[20:22, 10:12, 4:7] = 1  # two small ones high, side by side
    labels[20:22, 10:12, 20:23] = 2
    k, j, i = best_position(labels, [1, 2, 5])
    assert k in (20, 21) and j in (10, 11)
    assert (labels[:, :, i] > 0).any()
    assert best_position(np.zeros((9, 8, 7), np.uint8), [1]) == (4, 4, 3)


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 40, 30), (40, 1, 40), (1, 1, 1), (400, 20, 20)])
def test_any_shape_can_be_drawn(shape, tmp_path):
    labels = np.zeros(shape, np.uint8)
    labels[:1] = 5
    volume = Volume(np.full(shape, 20, np.int16), np.diag([0.7, 0.7, 1.0, 1.0]))
    path = tmp_path / "preview.png"
    draw_preview(
        volume, Segmentation(labels, volume.affine, NINE, {}), path, "a name " * 60, "a notice " * 60
    )
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        assert 600 <= picture.width <= 1800 and picture.height <= 1000


def test_nothing_is_cut_off_at_the_edges():
    picture = drawn(*ras_example(), title="case " * 100, notice="careful " * 100)
    edge = np.concatenate(
        [picture[:, :6].reshape(-1, 3), picture[:, -6:].reshape(-1, 3), picture[:4].reshape(-1, 3)]
    )
    assert (edge == BACKGROUND).all()


def test_another_grid_is_refused(tmp_path):
    volume, labels = ras_example()
    segmentation = Segmentation(labels[1:].copy(), volume.affine, NINE, {})
    with pytest.raises(SegMateError, match="shape"):
        draw_preview(volume, segmentation, tmp_path / "preview.png")
    assert not list(tmp_path.iterdir())
