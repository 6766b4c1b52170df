"""Synthetic torso CTs with truth for all nine organs: the public entry.

`make_anatomy(seed)` gives tissue and label maps only (training repaints them); `make_phantom(seed)` adds a
scanner: Hounsfield units, contrast phase, noise, couch, field of view. Same seed and PHANTOM_VERSION: same
anatomy, whatever the spacing, size or field, because everything random is drawn in millimetres.

Arrays are (K, J, I) stored as scanners do (axcodes LPS): i to the patient's left, j to posterior, k to
superior. Mirrored phantoms (situs inversus) mirror the anatomy in world space: the liver is then on the
patient's left, and the lung and the kidney on the patient's left side are still the left ones: names follow
the patient's sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data import phantom_abdomen as abdomen_parts
from SegMateCore.data import phantom_airways as airways
from SegMateCore.data import phantom_bowel as bowel_parts
from SegMateCore.data import phantom_heart as heart
from SegMateCore.data import phantom_liver as liver
from SegMateCore.data import phantom_pathology as pathology
from SegMateCore.data import phantom_skeleton as skeleton
from SegMateCore.data import phantom_vessels as vessels
from SegMateCore.data.phantom_body import paint_body, paint_limbs
from SegMateCore.data.phantom_canvas import Canvas, Grid
from SegMateCore.data.phantom_chest import Chest
from SegMateCore.data.phantom_frame import Frame
from SegMateCore.data.phantom_image import Scanner, outside_view, paint_image
from SegMateCore.data.phantom_landmarks import Abdomen
from SegMateCore.data.phantom_muscles import Diaphragm, paint_cavities, paint_deep_muscles
from SegMateCore.data.phantom_refine import painted_grid, refine
from SegMateCore.data.tissue import TISSUE_INDEX
from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume

PHANTOM_VERSION = 3
"""Grows whenever a seed's result changes."""

BODY_BOUNDS_MM = ((-700.0, 620.0), (-260.0, 260.0), (-300.0, 300.0))
"""Where a body can be in model space: z, y, x. Nothing is painted (and no memory used) outside."""

_SCANNER_STREAM = 10_000
"""Stream number of the scanner's generator, far from those of the anatomy's parts."""

FIELDS = ("torso", "chest", "abdomen")

DEFAULT_SIZE_MM = {
    "torso": (450.0, 330.0, None),
    "chest": (420.0, 320.0, None),
    "abdomen": (440.0, 330.0, None),
}
"""(left-right, front-back, None: as high as the field) when no size is given."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """tissue, labels: (K, J, I) uint8; affine: (4, 4) float64, (i, j, k, 1) to RAS mm; info: JSON-able
    facts."""

    tissue: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    info: dict


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT: volume int16 HU, labels and tissue (K, J, I) uint8 on its grid, info: JSON-able
    facts."""

    volume: Volume
    labels: np.ndarray
    tissue: np.ndarray
    info: dict


def make_anatomy(
    seed: int,
    spacing_mm: float | tuple[float, float, float] = 3.0,
    shape: tuple[int, int, int] | None = None,
    field: str = "torso",
    mirrored: bool = False,
    with_pathology: bool = True,
) -> Anatomy:
    """Draw one patient and paint the tissue and label maps.

    spacing_mm: one number or (i, j, k). shape: (K, J, I), None: the field's own size; a given shape is
    centred on the field and may be smaller or larger than the body. field: "torso", "chest" or "abdomen".
    Raises SegMateError for a seed below 0, a spacing not above 0, an empty shape or an unknown field.
    """
    spacing = _checked(seed, spacing_mm, shape, field)
    rng = _streams(seed)
    frame = Frame.draw(next(rng))
    grid = _grid(frame, spacing, shape, field, next(rng))
    seen = Grid(grid.z_mm, grid.y_mm, -grid.x_mm[::-1]) if mirrored else grid
    tissue, labels, facts = _anatomy_on(seen, spacing, frame, rng, with_pathology)
    if mirrored:
        tissue, labels = _mirror(tissue), _mirror(labels)
    info = {
        "phantom_version": PHANTOM_VERSION,
        "seed": int(seed),
        "field": field,
        "mirrored": mirrored,
        **facts,
    }
    return Anatomy(tissue, labels, _affine(grid, spacing), info)


def make_phantom(
    seed: int,
    spacing_mm: float | tuple[float, float, float] = 3.0,
    shape: tuple[int, int, int] | None = None,
    field: str = "torso",
    mirrored: bool = False,
    with_pathology: bool = True,
    phase: str | None = None,
) -> Phantom:
    """`make_anatomy`, scanned: HU in a drawn (or the given) contrast phase, noise, couch, field-of-view
    circle.

    phase: "none", "venous", "arterial" or None. Outside the circle the volume has a padding value, and
    tissue and labels are 0.
    """
    anatomy = make_anatomy(seed, spacing_mm, shape, field, mirrored, with_pathology)
    scanner = Scanner.draw(np.random.default_rng([int(seed), _SCANNER_STREAM]), phase)
    counts, starts, steps = anatomy.tissue.shape[::-1], anatomy.affine[:3, 3], np.diag(anatomy.affine)[:3]
    x, y, z = (
        np.abs(step) * np.arange(count, dtype=np.float32) + sign * start
        for count, start, step, sign in zip(counts, starts, steps, (-1, -1, 1))
    )
    grid = Grid(*(axis.astype(np.float32) for axis in (z, y, x)))
    image = paint_image(anatomy.tissue, grid, np.abs(steps), scanner, int(seed))
    outside = outside_view(grid, scanner)
    if outside is not None:
        anatomy.tissue[:, outside] = 0
        anatomy.labels[:, outside] = 0
    info = {
        **anatomy.info,
        "phase": scanner.phase,
        "noise_sd_hu": scanner.noise_sd_hu,
        "padding_hu": scanner.padding_hu,
    }
    return Phantom(Volume(image, anatomy.affine), anatomy.labels, anatomy.tissue, info)


def _checked(seed: int, spacing_mm, shape, field: str) -> np.ndarray:
    """spacing_mm as (3,) float64, after checking every argument."""
    spacing = np.broadcast_to(np.asarray(spacing_mm, float), 3)
    if int(seed) < 0:
        raise SegMateError(f"phantom seed {seed}: expected a whole number from 0")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise SegMateError(f"phantom spacing {spacing_mm} mm: expected one or three numbers above 0")
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise SegMateError(
            f"phantom shape {shape}: expected three whole numbers (slices, rows, columns) from 1"
        )
    if field not in FIELDS:
        raise SegMateError(f"phantom field {field!r}: expected one of {', '.join(FIELDS)}")
    return spacing


def _anatomy_on(
    grid: Grid, spacing, frame: Frame, rng, with_pathology: bool
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Paint the part of the grid where a body can be, on a coarser grid where the spacing is fine."""
    inside = tuple(
        slice(*np.searchsorted(axis, bounds))
        for axis, bounds in zip((grid.z_mm, grid.y_mm, grid.x_mm), BODY_BOUNDS_MM)
    )
    tissue, labels = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    fine = Grid(*(axis[part] for axis, part in zip((grid.z_mm, grid.y_mm, grid.x_mm), inside)))
    if 0 in fine.shape:
        return tissue, labels, {"pathology": [], "female": frame.female}
    painted = painted_grid(fine, spacing)
    canvas, facts = _paint(frame, painted, rng, with_pathology)
    if fine.shape == grid.shape:
        return *refine(canvas.tissue, canvas.labels, painted, fine), facts
    tissue[inside], labels[inside] = refine(canvas.tissue, canvas.labels, painted, fine)
    return tissue, labels, facts


def _streams(seed: int):
    """One independent generator per part, so that a change in one leaves the others as they are."""
    part = 0
    while True:
        yield np.random.default_rng([int(seed), part])
        part += 1


def _field_heights(frame: Frame, field: str, rng: np.random.Generator) -> tuple[float, float]:
    jitter = rng.uniform(size=4)
    if field == "chest":
        return -60 - 80 * jitter[0], frame.apex_z + 10 + 30 * jitter[1]
    if field == "abdomen":
        return frame.crest_z + 60 - 160 * jitter[2], 25 + 60 * jitter[3]
    return frame.hip_z - 35, frame.apex_z + 38


def _grid(frame: Frame, spacing, shape, field: str, rng: np.random.Generator) -> Grid:
    low, high = _field_heights(frame, field, rng)
    middle = np.array([0.0, 0.0, (low + high) / 2])
    if shape is None:
        size = np.array([*DEFAULT_SIZE_MM[field][:2], high - low])
        shape = tuple(int(round(length / step)) for length, step in zip(size, spacing))[::-1]
    counts = shape[::-1]
    x, y, z = (
        (centre + (np.arange(count) - (count - 1) / 2) * step).astype(np.float32)
        for centre, count, step in zip(middle, counts, spacing)
    )
    return Grid(z, y, x)


def _affine(grid: Grid, spacing) -> np.ndarray:
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -float(grid.x_mm[0]), -float(grid.y_mm[0]), float(grid.z_mm[0])
    return affine


def _mirror(values: np.ndarray) -> np.ndarray:
    """Flip left and right and exchange the names of sides (the class numbers of tissue and labels agree)."""
    table = np.arange(256, dtype=np.uint8)
    for one, other in (("left lung", "right lung"), ("left kidney", "right kidney")):
        table[[TISSUE_INDEX[one], TISSUE_INDEX[other]]] = TISSUE_INDEX[other], TISSUE_INDEX[one]
    return np.ascontiguousarray(table[values[:, :, ::-1]])


def _paint(frame: Frame, grid: Grid, rng, with_pathology: bool) -> tuple[Canvas, dict]:
    """The recipe: from the skin inwards, then the organs from the back to the front of the list."""
    draw = next(rng)
    canvas = Canvas(grid, next(rng), deformation_mm=draw.uniform(1.5, 4.0))
    diaphragm = Diaphragm.draw(frame, next(rng))
    chest = Chest.draw(frame, next(rng))
    abdomen = Abdomen.draw(frame, next(rng))
    paint_body(canvas, frame, next(rng))
    paint_limbs(canvas, frame, next(rng))
    cavities = paint_cavities(canvas, frame, diaphragm, next(rng))
    paint_deep_muscles(canvas, frame, next(rng))
    skeleton.paint_pelvis(canvas, frame, next(rng))
    skeleton.paint_ribs(canvas, frame, next(rng))
    skeleton.paint_shoulders(canvas, frame, next(rng))
    skeleton.paint_spine(canvas, frame, next(rng))
    heart.paint_mediastinal_fat(canvas, frame, chest, next(rng))
    canvas.limit = cavities
    _paint_abdomen(canvas, frame, (chest, abdomen, diaphragm), rng)
    found = pathology.paint_abdominal_pathology(canvas, frame, next(rng)) if with_pathology else []
    canvas.limit = None
    heart.paint_heart(canvas, chest, next(rng))
    vessels.paint_vessels(canvas, abdomen_parts.abdominal_vessels(frame, chest, abdomen, next(rng)))
    vessels.paint_vessels(canvas, vessels.great_vessels(frame, chest, next(rng)))
    vessels.paint_aorta(canvas, chest, next(rng))
    airways.paint_airways(canvas, frame, chest, next(rng))
    airways.paint_esophagus(canvas, chest, next(rng))
    airways.paint_lung_vessels(canvas, frame, chest, next(rng))
    if with_pathology:
        found += pathology.paint_chest_pathology(canvas, frame, next(rng))
    sides = [kidney.side for kidney in abdomen.kidneys]
    found += [f"no {name} kidney" for name, side in (("left", 1), ("right", -1)) if side not in sides]
    return canvas, {"pathology": found, "female": frame.female}


def _paint_abdomen(canvas: Canvas, frame: Frame, landmarks, rng) -> None:
    chest, abdomen, diaphragm = landmarks
    liver.paint_liver(canvas, frame, abdomen, diaphragm, next(rng))
    abdomen_parts.paint_spleen(canvas, frame, abdomen, diaphragm, next(rng))
    kidneys = next(rng)
    for kidney in abdomen.kidneys:
        abdomen_parts.paint_kidney(canvas, kidney, kidneys)
    abdomen_parts.paint_pancreas(canvas, frame, abdomen, next(rng))
    liver.paint_gallbladder(canvas, frame, abdomen, next(rng))
    bowel_parts.paint_stomach(canvas, frame, tuple(chest.esophagus[-1]), next(rng))
    bowel_parts.paint_colon(canvas, frame, next(rng))
    bowel_parts.paint_small_bowel(canvas, frame, next(rng))
    bowel_parts.paint_mesentery(canvas, frame, next(rng))
    bowel_parts.paint_pelvis_organs(canvas, frame, next(rng))
