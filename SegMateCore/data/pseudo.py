"""Lungs and trachea by classical rules, as labels for CTs that nobody annotated.

Takes HU on a coarse isotropic grid of about 3 mm (K, J, I) in RAS order, gives uint8 labels (1 left lung, 2
right lung, 9 trachea, as in the organ table) and the names of the organs that the rules vouch for. Method:
body mask, air inside it, trachea tracked slice by slice from the top down, lungs as the large rest, sides
by position against the body's midline, closed to take in vessels (after Hu, Hoffman and Reinhardt,
"Automatic lung segmentation for accurate quantitation of volumetric X-ray CT images", 2001). Look at every
result before use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

LEFT_LUNG, RIGHT_LUNG, TRACHEA = 1, 2, 9
AIR_BELOW_HU = -400
BODY_ABOVE_HU = -350
# Smoothed along the body only: at 3 mm the trachea's wall is thinner than a voxel, and any blur within the
# slice joins it to the lung beside it.
TRACHEA_BELOW_HU = -750
TRACHEA_WALL_BELOW_HU = -450
# Limits of a lung on a 3 mm grid, in voxels: 0.1 litre is the least that counts as one.
SMALLEST_LUNG_VOXELS = 3700
# Cross-section of a trachea, in voxels of 9 square millimetres: 45 to 540 square millimetres.
TRACHEA_SECTION = (5, 60)
# How far below the carina the bronchi are followed, so that they do not count as lung.
BRONCHI_SLICES = 14
TRACHEA_STEP_VOXELS = 3.5
# A shorter track (60 mm) is a piece of a trachea, whose rest would be taught as background.
FEWEST_TRACHEA_SLICES = 20
_CROSS_IN_SLICE = ndimage.generate_binary_structure(2, 1)[None]
# Share of a lung that must lie on its own side of the midline for the side to be trusted.
OWN_SIDE_SHARE = 0.85


@dataclass(frozen=True)
class AirwayTrack:
    """Trachea and the bronchi below it, bool (K, J, I), and the trachea's last slice, None if unfound."""

    mask: np.ndarray
    bronchi: np.ndarray
    carina: int | None


def lungs_and_trachea(hu: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(labels uint8 (K, J, I), names of the organs that passed the checks) of a CT on a 3 mm RAS grid."""
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.6)
    body = body_mask(smooth)
    midline = _midline(body)
    airway = track_trachea(hu, body, midline)
    airway_shell = ndimage.binary_dilation(airway.mask | airway.bronchi, iterations=1)
    air = ndimage.binary_opening((smooth < AIR_BELOW_HU) & body & ~airway_shell)
    labels = _split_sides(_large_regions(air), midline)
    labels = _close_lungs(labels, body, airway_shell)
    names = [
        name
        for name, label in (("left lung", LEFT_LUNG), ("right lung", RIGHT_LUNG))
        if _side_is_right(labels == label, midline, label)
    ]
    if airway.carina is not None:
        labels[airway.mask] = TRACHEA
        names.append("trachea")
    return labels, names


def body_mask(smooth: np.ndarray) -> np.ndarray:
    """The patient without table and clothes, holes filled slice by slice, bool (K, J, I)."""
    regions, _ = ndimage.label(ndimage.binary_opening(smooth > BODY_ABOVE_HU))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    largest = regions == sizes.argmax()
    closed = ndimage.binary_closing(largest, np.ones((1, 3, 3)), iterations=2) | largest
    return np.stack([ndimage.binary_fill_holes(plane) for plane in closed])


def _midline(body: np.ndarray) -> np.ndarray:
    """Column (K,) of the body's middle per slice, smoothed along the body."""
    columns = np.arange(body.shape[2])
    weight = body.sum(axis=1).astype(float)
    centre = (weight * columns).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)
    return ndimage.gaussian_filter1d(centre, 8, mode="nearest")


def track_trachea(hu: np.ndarray, body: np.ndarray, midline: np.ndarray) -> AirwayTrack:
    """Follow the most trachea-like air column downwards; the longest track that starts near the midline wins.

    A track ends where the section jumps, grows beyond a trachea's or splits: the carina.
    """
    along_body = ndimage.gaussian_filter1d(hu.astype(np.float32), 0.8, axis=0)
    dark = (along_body < TRACHEA_BELOW_HU) & body
    best: list[tuple[int, np.ndarray]] = []
    taken = np.zeros(dark.shape, bool)
    for k in range(len(dark) - 1, -1, -1):
        for section in _round_sections(dark[k] & ~taken[k]):
            row, column = ndimage.center_of_mass(section)
            if abs(column - midline[k]) < 12 and _is_deep(body[k], row, int(column)):
                track = _follow_down(dark, k, section)
                for level, mask in track:
                    taken[level] |= mask
                if len(track) > len(best):
                    best = track
    mask = np.zeros(dark.shape, bool)
    if len(best) < FEWEST_TRACHEA_SLICES:
        return AirwayTrack(mask, mask.copy(), None)
    for level, section in best:
        mask[level] = section
    bronchi = _bronchi(dark, best[-1])
    wall = ndimage.binary_dilation(mask, _CROSS_IN_SLICE) & (hu < TRACHEA_WALL_BELOW_HU)
    return AirwayTrack(mask | wall, bronchi, best[-1][0])


def _bronchi(dark: np.ndarray, end: tuple[int, np.ndarray]) -> np.ndarray:
    """Small air sections below the carina that touch those of the slice above, bool (K, J, I)."""
    bronchi = np.zeros(dark.shape, bool)
    carina, above = end
    for k in range(carina - 1, max(-1, carina - 1 - BRONCHI_SLICES), -1):
        regions, count = ndimage.label(dark[k])
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        touched = np.unique(regions[ndimage.binary_dilation(above, iterations=2)])
        small = [index for index in touched if index and sizes[index] <= TRACHEA_SECTION[1]]
        bronchi[k] = above = np.isin(regions, small)
    return bronchi


def _round_sections(plane: np.ndarray) -> list[np.ndarray]:
    """The compact regions (J, I) of a slice whose area is a trachea's."""
    regions, count = ndimage.label(plane)
    found = []
    for index, box in enumerate(ndimage.find_objects(regions), 1):
        section = regions == index
        area = int(section.sum())
        height, width = (side.stop - side.start for side in box)
        if TRACHEA_SECTION[0] <= area <= TRACHEA_SECTION[1] and max(height, width) <= 2.2 * min(
            height, width
        ):
            found.append(section)
    return found


def _is_deep(plane: np.ndarray, row: float, column: int) -> bool:
    """Whether a point lies well inside the body: not in a skin fold or between neck and table."""
    rows = np.flatnonzero(plane[:, column])
    return rows.size > 0 and row - rows[0] > 10 and rows[-1] - row > 3


def _follow_down(dark: np.ndarray, start: int, section: np.ndarray) -> list[tuple[int, np.ndarray]]:
    track = [(start, section)]
    for k in range(start - 1, -1, -1):
        last = track[-1][1]
        centre = np.array(ndimage.center_of_mass(last))
        near = [
            (float(np.hypot(*(np.array(ndimage.center_of_mass(candidate)) - centre))), index, candidate)
            for index, candidate in enumerate(_round_sections(dark[k]))
        ]
        near = [entry for entry in near if entry[0] < TRACHEA_STEP_VOXELS and (entry[2] & last).any()]
        if not near:
            break
        track.append((k, min(near)[2]))
    return track


def _large_regions(air: np.ndarray) -> np.ndarray:
    regions, _ = ndimage.label(air)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return np.isin(regions, np.flatnonzero(sizes > SMALLEST_LUNG_VOXELS))


def _split_sides(lungs: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Labels (K, J, I): every voxel goes to the lung core nearest to it; cores are eroded until they part."""
    labels = np.zeros(lungs.shape, np.uint8)
    side = np.where(np.arange(lungs.shape[2])[None, :] < midline[:, None], LEFT_LUNG, RIGHT_LUNG)
    core = lungs
    for _ in range(6):
        regions, count = ndimage.label(core)
        owner = _owners(regions, count, side)
        if owner is not None:
            break
        core = ndimage.binary_erosion(core)
    else:
        labels[lungs] = np.broadcast_to(side[:, None, :], lungs.shape)[lungs]
        return labels
    core_labels = owner[regions]
    nearest = ndimage.distance_transform_edt(core_labels == 0, return_distances=False, return_indices=True)
    labels[lungs] = core_labels[tuple(nearest)][lungs]
    return labels


def _owners(regions: np.ndarray, count: int, side: np.ndarray) -> np.ndarray | None:
    """Label of each region by the side most of it lies on; None while a large one spans both sides."""
    owner = np.zeros(count + 1, np.uint8)
    is_left = np.broadcast_to((side == LEFT_LUNG)[:, None, :], regions.shape)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    left = np.bincount(regions.ravel(), weights=is_left.ravel(), minlength=count + 1)
    for index in range(1, count + 1):
        share = left[index] / sizes[index]
        if sizes[index] > SMALLEST_LUNG_VOXELS and 1 - OWN_SIDE_SHARE < share < OWN_SIDE_SHARE:
            return None
        owner[index] = LEFT_LUNG if share > 0.5 else RIGHT_LUNG
    return owner


def _close_lungs(labels: np.ndarray, body: np.ndarray, airway: np.ndarray) -> np.ndarray:
    """Take in vessels and small nodules: closing by a 9 mm ball, never into airway or other lung."""
    ball = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), 3)
    out = labels.copy()
    for label in (LEFT_LUNG, RIGHT_LUNG):
        closed = ndimage.binary_closing(np.pad(labels == label, 4), ball)[4:-4, 4:-4, 4:-4]
        out[closed & (out == 0) & body & ~airway] = label
    return out


def _side_is_right(lung: np.ndarray, midline: np.ndarray, label: int) -> bool:
    if lung.sum() < SMALLEST_LUNG_VOXELS:
        return False
    is_left = np.arange(lung.shape[2])[None, None, :] < midline[:, None, None]
    share = float((lung & is_left).sum() / lung.sum())
    return (share if label == LEFT_LUNG else 1 - share) >= OWN_SIDE_SHARE
