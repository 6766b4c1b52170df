"""Whether a .onnx is one whole network: no other file, no loop, before ONNX Runtime gets it.

Takes a path, raises SegMateError. A graph may name other files for its weights, anywhere on the disk, and may
hold loops that never end; no network of ours does either. What remains is a program all the same, and may ask
for more memory than there is. Field numbers: onnx.proto3 of the ONNX project.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from SegMateCore.errors import SegMateError
from SegMateCore.protobuf_fields import MOST_FIELDS, Field, bytes_of, fields_of

# Each repeats a graph as often as it is told to.
LOOPS = ("Loop", "Scan", "SequenceMap")
_DEEPEST = 8
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 20, 25
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_NODE_TYPE, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_EXTERNAL, _TENSOR_PLACE = 13, 14
_LONGEST_NAME = 1000


def check_whole_network(path: Path) -> None:
    """Raises SegMateError for weights in other files, loops, training graphs, and for damage."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            walk = _Walk(stream)
            for field in walk.fields(0, size):
                if field.number == _MODEL_TRAINING:
                    raise _Refused("it holds a graph for training")
                if field.is_bytes and field.number == _MODEL_GRAPH:
                    _check_graph(walk, field, 0)
                elif field.is_bytes and field.number == _MODEL_FUNCTION:
                    _check_function(walk, field)
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
    except _Refused as error:
        raise SegMateError(
            f"{path} is refused: {error}; a network here is one file without loops, as segmate convert"
            " writes it"
        ) from None
    except ValueError as error:
        raise SegMateError(
            f"{path} is not a whole ONNX file ({error}); export or download it again"
        ) from None


class _Refused(Exception):
    """The reason."""


@dataclass
class _Walk:
    """The way through a file. seen: fields so far, of all messages together."""

    stream: BinaryIO
    seen: int = 0

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Those of one message, as fields_of gives them."""
        for field in fields_of(self.stream, start, end):
            self.seen += 1
            if self.seen > MOST_FIELDS:
                raise _Refused(f"its messages have more than {MOST_FIELDS} fields")
            yield field


def _check_graph(walk: _Walk, graph: Field, depth: int) -> None:
    if depth > _DEEPEST:
        raise _Refused("graphs are nested in graphs")
    for field in walk.fields(graph.start, graph.end):
        if field.number == _GRAPH_SPARSE:
            raise _Refused("it has sparse weights")
        if field.number == _GRAPH_TENSOR and field.is_bytes:
            _check_tensor(walk, field)
    _check_nodes(walk, graph, _GRAPH_NODE, depth)


def _check_function(walk: _Walk, function: Field) -> None:
    """Its nodes, and the values that their attributes have where a call gives none, graphs among them."""
    _check_nodes(walk, function, _FUNCTION_NODE, 0)
    for field in walk.fields(function.start, function.end):
        if field.number == _FUNCTION_ATTRIBUTE and field.is_bytes:
            _check_attribute(walk, field, 0)


def _check_nodes(walk: _Walk, within: Field, number: int, depth: int) -> None:
    """number: of the field of nodes in this message."""
    for node in walk.fields(within.start, within.end):
        if node.number != number or not node.is_bytes:
            continue
        for field in walk.fields(node.start, node.end):
            if field.number == _NODE_TYPE and field.length < _LONGEST_NAME:
                kind = bytes_of(walk.stream, field).decode("utf-8", "replace")
                if kind in LOOPS:
                    raise _Refused(f"it has a loop ({kind})")
            elif field.number == _NODE_ATTRIBUTE and field.is_bytes:
                _check_attribute(walk, field, depth)


def _check_attribute(walk: _Walk, attribute: Field, depth: int) -> None:
    for field in walk.fields(attribute.start, attribute.end):
        if field.number in _ATTRIBUTE_SPARSE:
            raise _Refused("it has sparse weights")
        if field.number in _ATTRIBUTE_TENSORS and field.is_bytes:
            _check_tensor(walk, field)
        elif field.number in _ATTRIBUTE_GRAPHS and field.is_bytes:
            _check_graph(walk, field, depth + 1)


def _check_tensor(walk: _Walk, tensor: Field) -> None:
    for field in walk.fields(tensor.start, tensor.end):
        if field.number == _TENSOR_EXTERNAL or (field.number == _TENSOR_PLACE and field.value != 0):
            raise _Refused("its weights lie in another file")
