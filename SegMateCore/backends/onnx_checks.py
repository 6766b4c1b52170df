"""Whether the graph of a `.onnx` is the one that its document describes, before and after it is run.

Takes a session of ONNX Runtime and its Checkpoint, raises SegMateError that names what contradicts. A graph
written by other programs, or with another program's mistake, would otherwise give labels of other organs, or
fail in the middle of a CT. docs/checkpoint.md describes what is expected.
"""

from __future__ import annotations

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError

# windows.SIZE_MULTIPLE, which cannot be imported here: it builds on this package.
_SIZE_MULTIPLE = 32
_FLOAT32 = "tensor(float)"


def check_precision(checkpoint: Checkpoint, wanted: str) -> None:
    """Raises SegMateError for another precision than the file's own."""
    has = file_precision(checkpoint)
    if wanted not in ("auto", has):
        raise SegMateError(
            f"precision {wanted!r} was asked for, but {checkpoint.source} holds a network in {has}: leave"
            " --precision out, or convert the .safetensors it was made from with --precision"
        )


def file_precision(checkpoint: Checkpoint) -> str:
    """What the document says; files from before there was more than one are float32."""
    return checkpoint.document["precision"] or "fp32"


def check_graph(session, checkpoint: Checkpoint) -> None:
    """Raises SegMateError where the inputs and the output of the graph contradict the document.

    What the graph leaves open, such as lengths with a name instead of a number, check_logits sees.
    """
    source = checkpoint.source
    if len(checkpoint.parts) != 1:
        raise SegMateError(
            f"{source}: its document describes {len(checkpoint.parts)} networks, but a .onnx holds one:"
            " run an ensemble as .safetensors"
        )
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if "slices" not in inputs or not inputs.keys() <= {"slices", "z_position"} or "logits" not in outputs:
        raise SegMateError(
            f"{source}: its graph takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))},"
            " expected slices (and z_position) and logits; docs/checkpoint.md describes them"
        )
    rule = checkpoint.parts[0].preprocessing
    if ("z_position" in inputs) != (rule.z_position is not None):
        takes = "takes" if "z_position" in inputs else "does not take"
        raise SegMateError(
            f'{source}: its graph {takes} z_position, but the "z_position" rule of its document is'
            f" {rule.z_position!r}; they must agree"
        )
    _check_tensor(source, inputs["slices"], ("B", rule.context, "H", "W"))
    _check_tensor(source, outputs["logits"], ("B", len(checkpoint.organs), "H", "W"))
    if "z_position" in inputs:
        _check_tensor(source, inputs["z_position"], ("B",))


def check_logits(shape: tuple[int, ...], windows: tuple[int, ...], checkpoint: Checkpoint) -> None:
    """Raises SegMateError unless windows (B, context, H, W) gave logits (B, organs, H, W)."""
    expected = (windows[0], len(checkpoint.organs), *windows[2:])
    if shape != expected:
        raise SegMateError(
            f"{checkpoint.source}: its graph gives logits {shape} for slices {windows}, expected {expected},"
            f" one channel for each of the {len(checkpoint.organs)} organs of its document"
        )


def _check_tensor(source: str, node, expected: tuple[str | int, ...]) -> None:
    """node: of a session; lengths are numbers, names where they are free, and none where nothing is said."""
    fits = node.type == _FLOAT32 and (
        not node.shape
        or (len(node.shape) == len(expected) and all(map(_length_fits, node.shape, expected)))
    )
    if not fits:
        raise SegMateError(
            f"{source}: {node.name} of its graph is {node.type} {_shape_text(node.shape)}, its document needs"
            f" {_FLOAT32} {_shape_text(expected)}, B free, H and W free or multiples of {_SIZE_MULTIPLE}"
        )


def _length_fits(found: int | str | None, expected: str | int) -> bool:
    """One axis; a number where B, H or W is expected is a graph for CTs of that size only."""
    if not isinstance(found, int):
        return True
    if expected in ("H", "W"):
        return found % _SIZE_MULTIPLE == 0
    return found == expected


def _shape_text(shape) -> str:
    return f"({', '.join('?' if length is None else str(length) for length in shape)})"
