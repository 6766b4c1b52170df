"""NIfTI (.nii, .nii.gz) in and out, headers by nibabel.

Takes files or nibabel images, gives Volumes, and the other way. Reading streams the voxels straight into
int16 or float32; writing repeats the source's own geometry fields where the volume came from NIfTI. sform and
qform that contradict each other are refused: which of them is right cannot be known from the file.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.nifti_extent import check_extent
from SegMateCore.volume import Volume, corners_mm
from SegMateCore.voxel_types import chunks_of, collect, numbers_in, read_to_the_end

# What a result repeats of its source's header to lie at exactly the same place for every reader.
GEOMETRY_FIELDS = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
# sform and qform may differ by rounding and by small shears, but not by more than this at any corner.
LARGEST_DISAGREEMENT_VOXELS = 1.0
# A qform is written beside the sform only where it says the same.
QFORM_TOLERANCE_VOXELS = 1e-3
# zlib cannot shrink data by more than this.
LARGEST_GZIP_RATIO = 1032
SCANNER_CODE = 1
COMMENT_EXTENSION = 6
# CT noise hardly compresses: higher levels cost many times the seconds for a few per cent.
COMPRESSION_LEVEL = 1
WRITABLE_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

_READ_ERRORS = (
    OSError, EOFError, zlib.error, ValueError, OverflowError, MemoryError, HeaderDataError, HeaderTypeError,
    nibabel.filebasedimages.ImageFileError, nibabel.wrapstruct.WrapStructError,
)  # fmt: skip


def read_nifti(path: str | PathLike, affine_source: str | None = None) -> Volume:
    """Read a NIfTI file as int16 or float32. Raises SegMateError for all but one 3D scalar image."""
    path = Path(path)
    image = open_nifti(path)
    shape, affine, geometry = _checked_header(image.header, affine_source)
    # nibabel moves offset and scaling from the header to the proxy.
    stored = image.dataobj
    count = math.prod(shape)
    zipped = path.name.lower().endswith(".gz")
    limit = path.stat().st_size * (LARGEST_GZIP_RATIO if zipped else 1)
    if stored.offset + count * stored.dtype.itemsize > limit:
        raise SegMateError(f"the file is too short for the {count} voxels of its header; copy it anew")
    try:
        with (gzip.open if zipped else open)(path, "rb") as stream:
            stream.seek(stored.offset)
            chunks = numbers_in(stream, count, stored.dtype)
            voxels = collect(chunks, count, stored.slope, stored.inter)
            read_to_the_end(stream)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        reason = _reason(error)
        raise SegMateError(f"the file is damaged ({reason}): copy or export it anew") from error
    return Volume(voxels.reshape(shape[::-1]), affine, geometry)


def open_nifti(path: Path) -> Nifti1Image:
    """The image with its header read and its voxels still in the file. Raises SegMateError if not NIfTI."""
    try:
        check_extent(path)
        image = nibabel.load(path)
    except _READ_ERRORS as error:
        raise SegMateError(
            f"not a readable NIfTI file ({_reason(error)}), expected .nii or gzipped .nii.gz; copy or convert"
            " it anew"
        ) from error
    if not isinstance(image, Nifti1Image):
        raise SegMateError(f"holds a {type(image).__name__}, expected a NIfTI image")
    _check_stored_spacing(image)
    return image


def read_comments(path: Path) -> list[str]:
    """The texts of the comment extensions in the header of a NIfTI file. Raises SegMateError if not NIfTI."""
    extensions = open_nifti(path).header.extensions
    comments = [one.get_content() for one in extensions if one.get_code() == COMMENT_EXTENSION]
    # Other programs write comments in encodings of their own, which must not keep the labels from being read.
    return [comment.decode(errors="replace") for comment in comments]


def _check_stored_spacing(image: Nifti1Image) -> None:
    """Refuse a spacing of 0: nibabel reads it as 1 mm, so only the header as it is on disk tells."""
    with image.file_map["image"].get_prepare_fileobj("rb") as stream:
        stored = type(image.header).from_fileobj(stream, check=False)
    spacing_mm = stored["pixdim"][1:4]
    if (spacing_mm == 0).any():
        given = " x ".join(f"{value:g}" for value in spacing_mm)
        raise SegMateError(
            f"the header's spacing is {given} mm, expected three positive numbers; mend the header"
        )


def volume_from_image(image: Nifti1Image, affine_source: str | None = None) -> Volume:
    """From a nibabel image in memory or on disk, by the same rules as a file."""
    if not isinstance(image, Nifti1Image):
        raise SegMateError(f"the image is a {type(image).__name__}, expected a nibabel Nifti1Image")
    header, stored = image.header.copy(), image.dataobj
    if nibabel.is_proxy(stored):
        raw, slope, intercept = stored.get_unscaled(), stored.slope, stored.inter
    else:
        raw, slope, intercept = np.asanyarray(stored), 1, 0
        # The header of an image made from an array may announce another type.
        header.set_data_dtype(raw.dtype)
    shape, affine, geometry = _checked_header(header, affine_source)
    raw = raw.reshape(shape, order="F").T
    return Volume(collect(chunks_of(raw), raw.size, slope, intercept).reshape(raw.shape), affine, geometry)


def image_from_volume(volume: Volume) -> Nifti1Image:
    """A nibabel image that shares the voxels; sform always, qform where it can say the same."""
    if volume.voxels.dtype.name not in WRITABLE_TYPES:
        raise SegMateError(f"voxels are {volume.voxels.dtype}, expected one of {', '.join(WRITABLE_TYPES)}")
    image = Nifti1Image(volume.voxels.transpose(2, 1, 0), volume.affine)
    header = image.header
    header.set_xyzt_units("mm")
    if volume.nifti_geometry is not None:
        for name in GEOMETRY_FIELDS:
            header[name] = volume.nifti_geometry[name]
        return image
    header.set_sform(volume.affine, SCANNER_CODE)
    header.set_qform(volume.affine, SCANNER_CODE, strip_shears=True)
    apart = _disagreement_voxels(volume.shape, header.get_qform(), volume.affine)
    if not apart <= QFORM_TOLERANCE_VOXELS:
        header["qform_code"] = 0
    return image


def write_nifti(volume: Volume, path: str | PathLike, comment: str | None = None) -> None:
    """Write .nii or .nii.gz, atomically, the same bytes each time; comment: text for a header extension."""
    image = image_from_volume(volume)
    if comment is not None:
        image.header.extensions.append(Nifti1Extension(COMMENT_EXTENSION, comment.encode()))
    with atomic_write(path) as stream:
        if Path(path).name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, stream, mtime=0) as zipped:
                image.to_stream(zipped)
        else:
            image.to_stream(stream)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _checked_header(
    header: Nifti1Header, affine_source: str | None
) -> tuple[tuple[int, int, int], np.ndarray, Mapping[str, np.ndarray] | None]:
    """Shape (I, J, K), affine and the geometry fields to repeat. Raises SegMateError."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if len(shape) < 3 or any(count < 1 for count in shape):
        raise SegMateError(f"the image has shape {shape}, expected three axes of at least one voxel each")
    frames = math.prod(shape[3:])
    if frames != 1:
        raise SegMateError(
            f"the image is {len(shape)}D with {frames} frames {shape}, expected one 3D volume; save one frame"
            " as a file of its own and give that"
        )
    if dtype.kind not in "iuf":
        kind = "colour (RGB)" if dtype.fields else str(dtype)
        raise SegMateError(f"the voxels are {kind}, expected one real number each (a CT in HU)")
    affine = _affine(header, affine_source)
    # A forced choice overrules the header, so its fields must not be repeated.
    geometry = {name: header[name].copy() for name in GEOMETRY_FIELDS} if affine_source is None else None
    return shape[:3], affine, geometry


def _affine(header: Nifti1Header, affine_source: str | None) -> np.ndarray:
    """The one affine of a header, (4, 4) to RAS mm. Raises SegMateError when it gives none, or two."""
    choose = "choose with affine_source (--affine) sform or qform"
    if affine_source not in (None, "sform", "qform"):
        raise SegMateError(f"affine_source is {affine_source!r}, expected 'sform', 'qform' or None")
    try:
        if affine_source is not None:
            return header.get_sform() if affine_source == "sform" else header.get_qform()
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError) as error:
        raise SegMateError(f"the header's geometry cannot be used ({_reason(error)}); {choose}") from error
    if sform is None and qform is None:
        raise SegMateError(
            f"the header gives no position in the patient (sform and qform codes are 0), expected one;"
            f" {choose}"
        )
    if sform is None or qform is None:
        return qform if sform is None else sform
    if np.sign(np.linalg.det(sform[:3, :3])) != np.sign(np.linalg.det(qform[:3, :3])):
        raise SegMateError(f"sform and qform differ in handedness, expected them to agree; {choose}")
    apart = _disagreement_voxels(header.get_data_shape()[2::-1], sform, qform)
    if not apart <= LARGEST_DISAGREEMENT_VOXELS:
        raise SegMateError(
            f"sform and qform place the corners up to {apart:.1f} voxels apart, expected at most"
            f" {LARGEST_DISAGREEMENT_VOXELS:g}; {choose}"
        )
    return sform


def _disagreement_voxels(shape: tuple[int, int, int], first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance between the corners under two affines, in voxels of the smaller spacing."""
    apart_mm = np.linalg.norm(corners_mm(shape, first) - corners_mm(shape, second), axis=1).max()
    spacing_mm = np.linalg.norm(np.hstack([first[:3, :3], second[:3, :3]]), axis=0).min()
    return float(apart_mm / spacing_mm) if spacing_mm > 0 else float("inf")
