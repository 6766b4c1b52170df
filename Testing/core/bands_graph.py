"""The stand-in network of fake_network as a .onnx file, and some that contradict their document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from fake_network import CENTRES_HU, LOGIT_PER_HU, band_checkpoint
from onnx import TensorProto, helper, numpy_helper

from SegMateCore.checkpoint_document import METADATA_KEY, document_text


def write_bands(
    path: Path, channels: int = 9, slices=("batch", 3, "rows", "columns"), logits=None,
    kind: int = TensorProto.FLOAT, takes_z: bool = False, document: dict | None = None, shift=0,
) -> Path:
    """slices, logits: the lengths that the graph names, None = as `channels` says. kind: of its input.

    takes_z: also takes z_position, and adds zero times it. document: None = that of band_checkpoint().
    shift: what is added to the logits, one number or one per channel.
    """
    def constant(name: str, value) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    node = helper.make_node
    nodes = [
        node("Cast", ["slices"], ["hu"], to=TensorProto.FLOAT),
        node("ReduceMean", ["hu", "axis"], ["mean"], keepdims=1),
        node("Sub", ["mean", "centres"], ["distance"]),
        node("Abs", ["distance"], ["apart"]),
        node("Mul", ["apart", "slope"], ["fall"]),
        node("Sub", ["peak", "fall"], ["bands" if takes_z else "logits"]),
    ]
    inputs = [helper.make_tensor_value_info("slices", kind, list(slices))]
    if takes_z:
        inputs.append(helper.make_tensor_value_info("z_position", TensorProto.FLOAT, [slices[0]]))
        nodes += [
            node("Reshape", ["z_position", "column"], ["z"]),
            node("Mul", ["z", "nothing"], ["shift"]),
            node("Add", ["bands", "shift"], ["logits"]),
        ]
    lengths = logits or [slices[0], channels, *slices[2:]]
    graph = helper.make_graph(
        nodes, "bands", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(lengths))],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "column"),
            constant("centres", np.resize(CENTRES_HU, channels)[None, :, None, None]),
            constant("slope", LOGIT_PER_HU),
            constant("peak", np.reshape(6 + np.float32(shift), (1, -1, 1, 1))), constant("nothing", 0),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, document_text(document or band_checkpoint().document)
    onnx.save(model, str(path))
    return path
