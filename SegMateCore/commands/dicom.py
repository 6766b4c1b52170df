"""`segmate dicom LABELS --reference SERIES -o OUT.dcm`: a label map as DICOM SEG or RTSTRUCT of its CT
series.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from SegMateCore.console import note
from SegMateCore.dicom_formats import DICOM_FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate dicom`."""
    parser.add_argument(
        "labels",
        metavar="LABELS",
        type=Path,
        help="a label map on the series' own grid, in any order of axes: .nii.gz, .nii, .seg.nrrd, .nrrd,"
        " or a DICOM SEG",
    )
    parser.add_argument(
        "--reference",
        metavar="SERIES",
        type=Path,
        required=True,
        help="the DICOM CT series that the labels were made of: its folder, or one of its files",
    )
    parser.add_argument(
        "--series", metavar="UID|NUMBER", help="which of several series (default: the only one)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT.dcm", type=Path, required=True, help="the file to write"
    )
    parser.add_argument(
        "--format", choices=DICOM_FORMATS, help="which DICOM object to write (default: dicom-seg)"
    )
    parser.add_argument(
        "--affine",
        choices=("sform", "qform"),
        help="which geometry of a NIfTI file to trust where its two differ (default: refuse such a file)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="only warnings and errors (default: say what was done)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for labels or a series that cannot be read or used together."""
    from SegMateCore.dicom_formats import check_replaceable, dicom_format, require_series
    from SegMateCore.dicom_results import DicomTarget
    from SegMateCore.errors import SegMateError
    from SegMateCore.segmentation import Segmentation

    form = dicom_format(arguments.output, arguments.format)
    if form is None:
        raise SegMateError(f"{arguments.output} is no name of a DICOM file, expected one that ends with .dcm")
    if not arguments.reference.exists():
        raise SegMateError(f"no file or folder {arguments.reference}: expected a DICOM CT series")
    require_series(arguments.reference, form)
    check_replaceable(arguments.output)
    if arguments.output.resolve() == arguments.labels.resolve():
        raise SegMateError(f"{arguments.output} is an input itself: choose another output")
    segmentation = Segmentation.read(arguments.labels, affine_source=arguments.affine)
    target = DicomTarget.for_series(arguments.reference, form, arguments.series)
    warnings = target.write(segmentation, arguments.output)
    for warning in warnings:
        note(f"segmate: warning: {warning}")
    if not arguments.quiet:
        note(f"wrote {arguments.output} ({form})")
    return 0
