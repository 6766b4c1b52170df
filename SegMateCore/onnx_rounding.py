"""What a float16 graph computes on a device with float16 arithmetic, on any CPU.

Takes a ModelProto with float16 in it (onnx_precision.as_fp16), gives one in float32 that rounds every
activation to float16 where the other one would: range and rounding are those of float16, infinities included.
ONNX Runtime's own way on a CPU without float16 arithmetic leaves this rounding out, so that labels look
better there than on a GPU. Sums inside a node stay in float32, as in the matrix units of GPUs; devices that
add in float16 lose more.
"""

from __future__ import annotations

import numpy as np
import onnx

from SegMateCore.errors import SegMateError

_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
# They give numbers that they were given.
_EXACT = (
    "Relu", "MaxPool", "Concat", "Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity",
)  # fmt: skip


def with_float16_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model`, metadata included. Nodes in order, none with a graph inside.

    Raises SegMateError where the type of a value cannot be found.
    """
    made = onnx.ModelProto.FromString(model.SerializeToString())
    graph = made.graph
    # Converters leave types of before; they are found anew.
    del graph.value_info[:]
    known = onnx.shape_inference.infer_shapes(made).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*known.value_info, *known.output)}
    for tensor in graph.initializer:
        _widen(tensor)
    nodes = []
    for node in graph.node:
        unknown = [name for name in node.output if name and name not in types]
        if unknown:
            raise SegMateError(
                "the rounding of float16 cannot be imitated: nothing tells the type of"
                f" {unknown[0]!r}, which a node {node.op_type} gives; export fp32"
            )
        nodes.extend(_rounding(node, types))
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _rounding(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    """The node in float32, and what rounds those of its outputs that were float16."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            _widen(attribute.t)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT16:
            attribute.i = _FLOAT
    after = []
    for index, name in enumerate(node.output):
        if not name or types[name] != _FLOAT16 or node.op_type in _EXACT:
            continue
        node.output[index] = f"{name}.exact"
        after.append(onnx.helper.make_node("Cast", [f"{name}.exact"], [f"{name}.float16"], to=_FLOAT16))
        after.append(onnx.helper.make_node("Cast", [f"{name}.float16"], [name], to=_FLOAT))
    return [node, *after]


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _FLOAT16:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
