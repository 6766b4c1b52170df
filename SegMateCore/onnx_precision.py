"""An exported graph in fp16 or int8: the same inputs and outputs in float32, cheaper arithmetic in between.

Takes a float32 ModelProto and windows of real slices, gives another ModelProto. fp16: weights and activations
in float16 except norms and what would leave its range; faster on GPUs, while a CPU without float16 arithmetic
computes it in float32. int8: static quantisation in QDQ form, weights per output channel, activations by
the range that the windows show (Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018); a quarter of the file, and up to twice as fast on a CPU where
most of the network is plain convolutions. Both by ONNX Runtime's own converters.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

# Sums over many values, and quotients of them, lose too much in float16.
_KEPT_IN_FP32 = (
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "ReduceMean", "ReduceSum", "Softmax", "Sqrt", "Pow",
)  # fmt: skip
# float16 ends at 65504; activations of other CTs may be some times larger than those that were seen.
_LARGEST_SEEN = 65504 / 8


@dataclass(frozen=True)
class Windows:
    """One network input. slices (1, context, H, W) float32; z_position (1,) float32, None without FiLM."""

    slices: np.ndarray
    z_position: np.ndarray | None

    def feeds(self) -> dict[str, np.ndarray]:
        """By the names of the graph's inputs."""
        feeds = {"slices": self.slices}
        return feeds if self.z_position is None else {**feeds, "z_position": self.z_position}


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Norms and biases merged into the convolutions before them, by ONNX Runtime's basic optimiser.

    Only standard operators come out, so that the result runs on every provider. What follows in this file
    needs it: a norm on its own would be rounded once more.
    """
    with tempfile.TemporaryDirectory(prefix="segmate-export-") as folder:
        path = Path(folder) / "fused.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(str(path))
    # It notes every operator set that it knows, used or not; older versions refuse those they do not know.
    used = {node.domain for node in optimised.graph.node}
    kept = [entry for entry in optimised.opset_import if entry.domain in used]
    del optimised.opset_import[:]
    optimised.opset_import.extend(kept)
    return optimised


def as_fp16(model: onnx.ModelProto, windows: Sequence[Windows]) -> onnx.ModelProto:
    """Computed in float16 except norms, and nodes that take or give values near the end of its range."""
    large = {name for name, value in _ranges(model, windows).items() if value > _LARGEST_SEEN}
    kept = [node.name for node in model.graph.node if large.intersection((*node.input, *node.output))]
    made = convert_float_to_float16(
        _copy(model), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32],
        node_block_list=kept,
    )  # fmt: skip
    _without_detours(made.graph)
    OnnxModel(made).topological_sort()  # the converter leaves its casts at the end
    return made


def as_int8(model: onnx.ModelProto, windows: Sequence[Windows], keep_ends: bool = False) -> onnx.ModelProto:
    """Quantised. keep_ends: the first and the last convolutions, whose rounding shows most, stay in float32.

    Weights take seven bits: with eight, processors without VNNI would overflow in their sums of pairs.
    """
    with tempfile.TemporaryDirectory(prefix="segmate-export-") as folder, _quiet_quantiser():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            _copy(model), str(path), _Reader(windows), quant_format=QuantFormat.QDQ, per_channel=True,
            reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, nodes_to_exclude=_ends(model) if keep_ends else [],
        )  # fmt: skip
        return onnx.load(str(path))


def _without_detours(graph: onnx.GraphProto) -> None:
    """Let values go directly between nodes that stay in float32; the converter sends them through float16."""
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    for node in makers.values():
        before = makers.get(node.input[0])
        if before is not None and _casts_to(node, "FLOAT") and _casts_to(before, "FLOAT16"):
            node.op_type, node.input[0] = "Identity", before.input[0]
            del node.attribute[:]


def _casts_to(node: onnx.NodeProto, kind: str) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.DataType.Value(kind)


class _Reader(CalibrationDataReader):
    """Hands the windows to ONNX Runtime one by one."""

    def __init__(self, windows: Sequence[Windows]):
        self._feeds: Iterator[dict[str, np.ndarray]] = (window.feeds() for window in windows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _ranges(model: onnx.ModelProto, windows: Sequence[Windows]) -> dict[str, float]:
    """Largest absolute value of each activation on the windows."""
    with tempfile.TemporaryDirectory(prefix="segmate-export-") as folder, _quiet_quantiser():
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        calibrator = create_calibrator(path, augmented_model_path=str(Path(folder) / "ranges.onnx"))
        calibrator.collect_data(_Reader(windows))
        found = calibrator.compute_data().data
        # Its session keeps the file open, which Windows does not let us remove.
        del calibrator
    return {
        name: float(max(np.abs(side).max() for side in value.range_value)) for name, value in found.items()
    }


def _ends(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that see an input, and of those that no other one follows."""
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    inputs = {entry.name for entry in model.graph.input}
    ends = {node.name for node in convolutions if inputs.intersection(node.input)}
    makers = {output: node for node in model.graph.node for output in node.output}
    waiting, seen = [entry.name for entry in model.graph.output], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in ("Conv", "ConvTranspose"):
            ends.add(node.name)
        else:
            waiting.extend(node.input)
    return sorted(ends)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The converters change what they are given."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


@contextmanager
def _quiet_quantiser():
    """It advises through the root logger what `fused` has done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
