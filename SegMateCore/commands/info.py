"""`segmate info FILE`: what is in a checkpoint, a CT or a segmentation."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from SegMateCore.commands.predict_arguments import add_series_option
from SegMateCore.console import say, table
from SegMateCore.errors import SegMateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate info`."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a checkpoint (a file or a bundled name such as demo), a CT (NIfTI, NRRD, DICOM folder, .zip"
        " or file; of several series it lists them) or a segmentation written by segmate",
    )
    parser.add_argument(
        "--affine",
        choices=("sform", "qform"),
        help="which geometry of a NIfTI file to trust where its two differ (default: refuse such a file)",
    )
    add_series_option(parser)
    parser.add_argument(
        "--json", action="store_true", help="as JSON: lengths in mm, volumes in ml (default: text)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for a file that cannot be read."""
    from SegMateCore.checkpoint import SUFFIXES

    path = Path(arguments.file)
    if path.suffix.lower() in SUFFIXES or not path.exists():
        say(_checkpoint(arguments))
        return 0
    from SegMateCore.volume_description import describe_volume
    from SegMateCore.volume_io import has_dicom_magic, is_dicom

    found = []
    # A file has its series; a folder or a ZIP may have several.
    if arguments.series is None and is_dicom(path) and not has_dicom_magic(path):
        from SegMateCore.dicom import list_series

        found = list_series(path)
        if len(found) > 1:
            say(_series(found, arguments.json))
            return 0
    facts = describe_volume(path, arguments.affine, arguments.series)
    for one in found:
        called = "" if one.number is None else f"number {one.number}, "
        facts["series"] = f"{called}{one.uid}, {one.description!r}, {one.count} slices"
    if arguments.json:
        say(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        say(f"{name.ljust(width)}  {_inline(value)}")
    return 0


def _series(found: list, as_json: bool) -> str:
    """The DICOM series to choose from."""
    if as_json:
        return json.dumps({"series": [asdict(one) for one in found]}, indent=2, ensure_ascii=False)
    rows = [
        (
            one.number, one.uid, one.description, one.count,
            "-" if one.spacing_mm is None else " x ".join(f"{mm:.3g}" for mm in one.spacing_mm),
        )
        for one in found
    ]  # fmt: skip
    notes = [f"{one.uid}: {text}" for one in found for text in (*one.warnings, one.problem) if text]
    listed = table(rows, ("number", "UID", "description", "slices", "spacing (mm)"))
    return "\n".join([listed, "", *notes, "choose one with --series UID or --series NUMBER"])


def _checkpoint(arguments: argparse.Namespace) -> str:
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.checkpoint import SUFFIXES, Checkpoint
    from SegMateCore.checkpoint_description import describe, describe_json

    try:
        path = resolve_checkpoint(arguments.file)
    except SegMateError as error:
        if Path(arguments.file).suffix.lower() in SUFFIXES:
            raise
        raise SegMateError(f"no file or folder {arguments.file}, and {error}") from error
    checkpoint = Checkpoint.read(path)
    return describe_json(checkpoint) if arguments.json else describe(checkpoint)


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inline(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return "; ".join(_inline(entry) for entry in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
