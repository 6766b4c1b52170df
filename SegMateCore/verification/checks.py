"""What is asked of one result: is it unchanged, does it fit its CT and its checkpoint.

Takes an Output and what to compare it with, gives Checks. What an older version did not record is "not
recorded", never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.finished import INT8
from SegMateCore.onnx_metadata import verify_graph
from SegMateCore.organs import OrganSet
from SegMateCore.verification.ct_inputs import CtInput, CtInputs, same_ct
from SegMateCore.verification.outputs import LABELS, MASK, UNKNOWN, Output
from SegMateCore.volume import Volume

OK, WRONG, NOT_RECORDED = "ok", "wrong", "not recorded"


@dataclass(frozen=True)
class Check:
    """what: "labels", "organs", ...; status: OK, WRONG or NOT_RECORDED; text: what was found, where that says
    more.
    """

    what: str
    status: str
    text: str = ""


@dataclass(frozen=True)
class Against:
    """What results are compared with; None: not compared."""

    inputs: CtInputs | None = None
    checkpoint: Checkpoint | None = None

    def __post_init__(self):
        """Raises SegMateError for a damaged checkpoint: its own hash would prove nothing."""
        if self.checkpoint is None:
            return
        if self.checkpoint.is_onnx:
            verify_graph(self.checkpoint.path)
        else:
            self.checkpoint.weights()


def check_output(output: Output, against: Against) -> list[Check]:
    """Everything but a repetition. Raises SegMateError for a CT that cannot be read."""
    if output.kind == UNKNOWN:
        return [Check("provenance", NOT_RECORDED)]
    checks = [_content(output), *_organs(output, against.checkpoint)]
    given = None
    if against.inputs is not None:
        given = against.inputs.of(output.case, output.provenance.get("input", {}).get("affine_source"))
        if given is None:
            checks.append(Check("input", WRONG, f"no CT of this name in {against.inputs.path}"))
    checks += _geometry(output, given)
    if given is not None:
        checks.append(_input(output, given))
    if against.checkpoint is not None:
        checks.append(_checkpoint(output, against.checkpoint))
    return checks


def _content(output: Output) -> Check:
    what = output.kind if output.kind != MASK else LABELS
    recorded = output.recorded_sha256
    if recorded is None:
        return Check(what, NOT_RECORDED)
    if recorded == output.content_sha256:
        return Check(what, OK)
    text = f"not those that were written ({output.content_sha256[:12]}, recorded {recorded[:12]})"
    return Check(what, WRONG, text)


def _organs(output: Output, checkpoint: Checkpoint | None) -> Iterator[Check]:
    """Whether the file's organ table is the checkpoint's; that its labels are in the table, reading says."""
    if output.organs is None:
        return
    if checkpoint is None:
        yield Check("organs", OK)
        return
    try:
        wanted = _organ_set(output, checkpoint)
        for organ in output.organs:
            known = wanted.by_name(organ.name)
            # One organ by itself is 1, whatever it is among others.
            labels = (1, known.label) if len(output.organs) == 1 else (known.label,)
            if (organ.code, organ.modifier) != (known.code, known.modifier) or organ.label not in labels:
                raise SegMateError(f"the {organ.name} is not that of the checkpoint (code, side or label)")
    except SegMateError as error:
        yield Check("organs", WRONG, str(error))
    else:
        yield Check("organs", OK)


def _organ_set(output: Output, checkpoint: Checkpoint) -> OrganSet:
    name = output.provenance.get("organ_set")
    if name is None or name == checkpoint.organ_set:
        return checkpoint.organs
    return checkpoint.with_organ_set(name).organs


def _geometry(output: Output, given: CtInput | None) -> Iterator[Check]:
    """Whether labels or probabilities lie where the CT does: as recorded, and as the CT says itself."""
    if output.volume is None:
        return
    recorded = output.provenance.get("input", {})
    known = "affine" in recorded
    if known and not _lies_at(output.volume, recorded):
        yield Check("geometry", WRONG, "on another grid than the CT it was made from, as recorded")
    elif given is not None and not (known and recorded.get("file_sha256") == given.file_sha256 is not None):
        if same_place(output.volume, given.volume):
            yield Check("geometry", OK)
        else:
            yield Check("geometry", WRONG, f"on another grid than {given.path.name}")
    else:
        yield Check("geometry", OK if known else NOT_RECORDED)


def _lies_at(volume: Volume, recorded: dict) -> bool:
    try:
        grid = Volume(np.broadcast_to(np.uint8(0), recorded["shape"]), np.array(recorded["affine"]))
    except (SegMateError, KeyError, TypeError, ValueError):
        return False
    return same_place(volume, grid)


def same_place(first: Volume, second: Volume) -> bool:
    """Whether voxels lie at the same places, in whatever order they are stored."""
    return first.canonical().same_grid(second.canonical())


def _input(output: Output, given: CtInput) -> Check:
    recorded = output.provenance.get("input")
    if not recorded:
        return Check("input", NOT_RECORDED)
    how = same_ct(recorded, given)
    if how is None:
        return Check("input", WRONG, f"not made from {given.path.name}")
    return Check("input", OK, how)


def _checkpoint(output: Output, checkpoint: Checkpoint) -> Check:
    recorded = output.provenance.get("weights_sha256")
    if recorded is None:
        return Check("checkpoint", NOT_RECORDED)
    if recorded != checkpoint.weights_sha256:
        name = output.provenance.get("checkpoint", "unknown")
        text = f"made by {name!r} ({recorded[:12]}), not by these weights ({checkpoint.weights_sha256[:12]})"
        return Check("checkpoint", WRONG, text)
    if (output.provenance.get("precision") == INT8) != (checkpoint.document["precision"] == INT8):
        return Check("checkpoint", WRONG, "int8 and full precision are different networks")
    return Check("checkpoint", OK)
