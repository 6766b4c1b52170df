"""Several checkpoints as one: the parts side by side, their probabilities averaged when predicting.

Takes .safetensors checkpoints with the same organs, gives one .safetensors. Each part keeps its own network
and its own preprocessing, so that networks at different spacings can vote together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError


def make_ensemble(paths: Sequence[str | Path], out: str | Path, name: str | None = None) -> Checkpoint:
    """Writes the ensemble of the checkpoints at `paths` to `out` and gives it back as read.

    Members that are ensembles themselves bring all their parts, each with equal weight. The clean-up rules
    are those of the first member. A demonstration member makes a demonstration ensemble. Raises SegMateError
    for fewer than two members, an output that is one of them, organs that differ, and .onnx members.
    """
    if len(paths) < 2:
        raise SegMateError(f"an ensemble needs at least two checkpoints, {len(paths)} given")
    if any(Path(out).exists() and Path(out).samefile(path) for path in paths if Path(path).exists()):
        raise SegMateError(f"{out} is both input and output; give another output")
    members = [Checkpoint.read(path) for path in paths]
    first = members[0]
    for member in members[1:]:
        if member.organs.to_list() != first.organs.to_list():
            raise SegMateError(
                f"{member.source} and {first.source} do not have the same organs in the same order "
                f"({', '.join(member.organs.names)} against {', '.join(first.organs.names)})"
            )
    documents = [member.document for member in members]
    combined = {
        "name": name or "ensemble of " + ", ".join(document["name"] for document in documents),
        "description": f"Average of {sum(len(document['parts']) for document in documents)} networks.",
        "demonstration": any(document["demonstration"] for document in documents),
        "organs": documents[0]["organs"],
        "merge": "ensemble",
        "parts": [part for document in documents for part in document["parts"]],
        "clean_up": documents[0]["clean_up"],
        "training": {"members": [_member_record(document) for document in documents]},
        "licences": _without_repeats(entry for document in documents for entry in document["licences"]),
    }
    weights = [member.weights(index) for member in members for index in range(len(member.parts))]
    return Checkpoint.write(out, combined, weights)


def _member_record(document: dict) -> dict:
    """What the ensemble remembers of a member, metrics included: they are its own, not the ensemble's."""
    return {key: document[key] for key in ("name", "weights_sha256", "training", "metrics")}


def _without_repeats(entries) -> list:
    kept: list = []
    for entry in entries:
        if entry not in kept:
            kept.append(entry)
    return kept
