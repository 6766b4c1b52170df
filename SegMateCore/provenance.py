"""What a result says about its making: gathered while it is made, and read back from its header alone.

Gives dictionaries that go into files as they are (docs/provenance.md says what each entry is). They hold no
names of files, which may be those of patients.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from SegMateCore.cancelling import IsCancelled
from SegMateCore.content_hash import files_sha256, json_sha256, volume_sha256
from SegMateCore.organs import OrganSet
from SegMateCore.segmentation import DICOM_SUFFIX, Segmentation, parse_document
from SegMateCore.version import __version__
from SegMateCore.volume import Volume
from SegMateCore.volume_io import NIFTI_SUFFIXES, is_dicom

# Of the voxels of a file, the lines of a table or the pixels of a picture: what is no whole label map.
CONTENT_KEY = "content_sha256"
# What "content" says of a file of an organ's probabilities, which is no label map.
PROBABILITIES = "probabilities"


def versions(engines: Iterable[str]) -> dict[str, str]:
    """Of what computed a result; engines: such as "onnxruntime 1.22.0"."""
    return {
        "segmate": __version__,
        "engine": ", ".join(dict.fromkeys(engines)),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def input_facts(volume: Volume, cancelled: IsCancelled = None) -> dict:
    """Of the CT as it was read; shape is (K, J, I). Raises Cancelled."""
    return {
        "sha256": volume_sha256(volume, cancelled),
        "kind": "array",
        "shape": list(volume.shape),
        "spacing_mm": [round(length, 6) for length in volume.spacing_mm],
        "affine": volume.affine.tolist(),
    }


def source_facts(path: Path, affine_source: str | None = None) -> dict:
    """What more there is to say of a CT that is read from `path`: to be asked for before it is read.

    file_sha256 is that of a file's bytes, file_bytes their number. A DICOM series is known by its voxels,
    instance by instance in the order of their positions: among its files may be others. Raises SegMateError.
    """
    facts: dict = {"kind": kind_of(path)}
    if affine_source is not None:
        facts["affine_source"] = affine_source
    if facts["kind"] != "DICOM":
        facts["file_sha256"] = files_sha256([path])
        facts["file_bytes"] = path.stat().st_size
    return facts


def kind_of(path: Path) -> str:
    """ "NIfTI", "NRRD" or "DICOM"."""
    if is_dicom(path):
        return "DICOM"
    return "NIfTI" if path.name.lower().endswith(NIFTI_SUFFIXES) else "NRRD"


def traced(segmentation: Segmentation, source: Mapping, command: str | None) -> Segmentation:
    """With what its maker could not know: source_facts of the CT, and the command that was given."""
    made = segmentation.provenance
    provenance = {**made, "input": {**made.get("input", {}), **source}, "command": command}
    return replace(segmentation, provenance=provenance)


def sealed(provenance: Mapping, content: object) -> dict:
    """The provenance of a table: with the fingerprint of its content, which is JSON-able."""
    return {**provenance, CONTENT_KEY: json_sha256(content)} if provenance else {}


def provenance_text(provenance: Mapping) -> str:
    """JSON, the same text each time; "" for none."""
    return json.dumps(provenance, sort_keys=True) if provenance else ""


def read_provenance(path: Path) -> tuple[OrganSet, dict]:
    """Organs and provenance of a segmentation; the nine and {} where the file holds none, such as a CT.

    Raises SegMateError for a damaged file.
    """
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        from SegMateCore.nrrd_io import read_header
        from SegMateCore.seg_nrrd import document_texts

        return parse_document(document_texts(read_header(path)))
    if path.name.lower().endswith(DICOM_SUFFIX):
        from SegMateCore.dicom_header import read_file_document

        return parse_document([read_file_document(path)])
    from SegMateCore.nifti import read_comments

    return parse_document(read_comments(path))
