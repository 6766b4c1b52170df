"""Whether a case in a folder of cases needs no more work: its outputs are there, as this run would make them.

Takes the paths of a case's outputs, reads headers only.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.batch import Outputs
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.dicom_formats import check_format
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.predictor import PredictOptions, clean_up_rules
from SegMateCore.provenance import read_provenance

INT8 = "int8"


def is_finished(
    outputs: Outputs, checkpoint: Checkpoint, organs: OrganSet, options: PredictOptions,
    affine_source: str | None = None, ct: Path | None = None,
) -> bool:
    """Whether every file asked for is there: written atomically, so what is there is whole.

    ct: the file that the case is now, None for a folder or where that is not to be looked at. Raises
    SegMateError when a segmentation is there that this run would not make (another checkpoint or its int8
    form, other organs, flip averaging or clean-up chosen differently, the other geometry of the file, a file
    of another size): it is neither taken for finished nor replaced. Other precisions give the same labels up
    to rounding.
    """
    expected = {
        "weights_sha256": checkpoint.weights_sha256,
        "flip_average": options.flip_average,
        "clean_up": bool(clean_up_rules(checkpoint, options)),
        "region": None,
        "overlap": options.overlap,
        "mirror": options.mirror,
        INT8: checkpoint.document["precision"] == INT8,
        "affine_source": affine_source,
    }
    file_bytes = ct.stat().st_size if ct is not None and ct.is_file() else None
    for path, held in outputs.segmentations(organs):
        if path.is_file():
            if outputs.dicom is not None:
                check_format(path, outputs.dicom)
            _check_same_origin(path, expected, held, file_bytes)
    return all(path.is_file() for path in outputs.files(organs))


def _check_same_origin(
    path: Path, expected: dict, organs: tuple[str, ...], file_bytes: int | None
) -> None:
    """organs: the names in the file's table. file_bytes: of the CT. Raises SegMateError."""
    advice = "give another folder, or --overwrite to replace it"
    found, provenance = read_provenance(path)
    if not provenance:
        raise SegMateError(f"{path} exists and does not say how it was made: {advice}")
    if provenance.get("weights_sha256") != expected["weights_sha256"]:
        raise SegMateError(
            f"{path} was made by the checkpoint {provenance.get('checkpoint', 'unknown')!r}: {advice}"
        )
    if (provenance.get("precision") == INT8) != expected[INT8]:
        made, wanted = ("full precision", INT8) if expected[INT8] else (INT8, "full precision")
        raise SegMateError(f"{path} was made in {made}, this run is in {wanted}: {advice}")
    for choice in ("overlap", "mirror"):
        if provenance.get(choice) != expected[choice]:
            raise SegMateError(
                f"{path} was made with the {choice} {_chosen(provenance.get(choice))}, this run is with"
                f" {_chosen(expected[choice])}: {advice}"
            )
    source = provenance.get("input", {})
    if None not in (file_bytes, source.get("file_bytes")) and source["file_bytes"] != file_bytes:
        raise SegMateError(
            f"{path} was made of another file: the CT of this name had {source['file_bytes']} bytes then and"
            f" has {file_bytes} now: {advice}"
        )
    # Older results do not say it.
    if "kind" in source and source.get("affine_source") != expected["affine_source"]:
        made, wanted = source.get("affine_source"), expected["affine_source"]
        raise SegMateError(
            f"{path} was made with {_geometry(made)}, this run is with {_geometry(wanted)}: {advice}"
        )
    choices = {"flip_average": "flip averaging", "clean_up": "clean-up", "region": "a region"}
    for choice, what in choices.items():
        if provenance.get(choice) != expected[choice]:
            made, wanted = ("without", "with") if expected[choice] else ("with", "without")
            raise SegMateError(f"{path} was made {made} {what}, this run is {wanted} it: {advice}")
    if found.names != organs:
        raise SegMateError(f"{path} holds other organs ({', '.join(found.names)}): {advice}")


def _geometry(affine_source: str | None) -> str:
    return f"the {affine_source} of its CT" if affine_source else "the one geometry of its CT"


def _chosen(value: object) -> str:
    return "of the checkpoint" if value is None else str(value)
