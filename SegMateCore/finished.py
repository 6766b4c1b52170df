"""Whether a case in a folder of cases needs no more work: its outputs are there, by the same checkpoint.

Takes the paths of a case's outputs, reads headers only.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.batch import Outputs
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.provenance import read_provenance


def is_finished(outputs: Outputs, checkpoint: Checkpoint, organs: OrganSet) -> bool:
    """Whether every file asked for is there: written atomically, so what is there is whole.

    Raises SegMateError when a segmentation is there that this run would not make: it is neither taken for
    finished nor replaced.
    """
    files = outputs.files(organs)
    if files[0].is_file():
        _check_same_origin(files[0], checkpoint, organs)
    return all(path.is_file() for path in files)


def _check_same_origin(path: Path, checkpoint: Checkpoint, organs: OrganSet) -> None:
    advice = "give another folder, or --overwrite to replace it"
    found, provenance = read_provenance(path)
    if not provenance:
        raise SegMateError(f"{path} exists and does not say how it was made: {advice}")
    if provenance.get("weights_sha256") != checkpoint.weights_sha256:
        raise SegMateError(
            f"{path} was made by the checkpoint {provenance.get('checkpoint', 'unknown')!r}: {advice}"
        )
    if found.names != organs.names:
        raise SegMateError(f"{path} holds other organs ({', '.join(found.names)}): {advice}")
