"""float16 imitated on a CPU: numpy's own float16 gives the same numbers, and the same overflow."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")

from bands_graph import write_bands  # noqa: E402
from fake_network import CENTRES_HU  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: E402
from onnxruntime.transformers.onnx_model import OnnxModel  # noqa: E402

from SegMateCore import export_lowered  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.export_lowered import DICE_ARITHMETIC, MIN_DICE, lowered  # noqa: E402
from SegMateCore.onnx_rounding import with_float16_rounding  # noqa: E402
from SegMateCore.volume import Volume  # noqa: E402


def run(model: onnx.ModelProto, **feeds) -> np.ndarray:
    """On the CPU, as predict runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def all_float16(model: onnx.ModelProto, *_) -> onnx.ModelProto:
    """Everything in float16, however large: what as_fp16 takes care not to do."""
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    made = convert_float_to_float16(copied, keep_io_types=True, op_block_list=[])
    OnnxModel(made).topological_sort()
    return made


def scaled_sum(scale: float) -> onnx.ModelProto:
    """y = max((x * scale) + 0.1, 0) * (1 / scale), with one of the constants in a node of its own."""
    constant = helper.make_node("Constant", [], ["tenth"], value=numpy_helper.from_array(np.float32(0.1)))
    nodes = [
        constant,
        helper.make_node("Mul", ["x", "scale"], ["large"]),
        helper.make_node("Add", ["large", "tenth"], ["more"]),
        helper.make_node("Relu", ["more"], ["positive"]),
        helper.make_node("Mul", ["positive", "back"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    given, result = (value(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    values = {"scale": scale, "back": 1 / scale}
    constants = [numpy_helper.from_array(np.float32(v), name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("scale", [3.0, 1e4, 1e-3])
def test_the_numbers_are_those_of_numpys_float16(scale):
    x = np.random.default_rng(0).uniform(-40, 40, 1000).astype(np.float32)
    half = np.float16
    with np.errstate(over="ignore"):
        product = np.maximum(x.astype(half) * half(scale) + half(0.1), half(0))
        expected = (product * half(1 / scale)).astype(np.float32)
    assert np.isinf(expected).any() == (scale == 1e4)
    found = run(with_float16_rounding(all_float16(scaled_sum(scale))), x=x)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(run(scaled_sum(scale), x=x), expected)


def test_what_stays_in_float32_is_not_rounded():
    x = np.random.default_rng(0).uniform(-40, 40, 100).astype(np.float32)
    model = scaled_sum(3.0)
    np.testing.assert_array_equal(run(with_float16_rounding(model), x=x), run(model, x=x))


def bands_through(gain: float, path) -> onnx.ModelProto:
    """The stand-in network, its mean HU multiplied by `gain` on the way and divided again."""
    model = onnx.load(str(write_bands(path)))
    distance = next(node for node in model.graph.node if node.output[0] == "distance")
    distance.input[0] = "again"
    detour = [
        helper.make_node("Mul", ["mean", "gain"], ["large"], name="gain"),
        helper.make_node("Mul", ["large", "loss"], ["again"], name="loss"),
    ]
    at = list(model.graph.node).index(distance)
    nodes = [*model.graph.node[:at], *detour, *model.graph.node[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, value in (("gain", gain), ("loss", 1 / gain)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node{number}"
    return model


def test_fp16_that_would_overflow_on_a_gpu_is_refused_on_the_cpu(tmp_path, monkeypatch):
    """HU of 120 times 1000 are more than float16 holds; a CPU computes the same graph without noticing."""
    hu = np.full((6, 40, 40), -1000, np.int16)
    hu[:, 4:36, 4:36] = round(CENTRES_HU[7])
    volume = Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0]))
    model = bands_through(1000.0, tmp_path / "x.onnx")
    result = lowered(model, "fp16", [volume], lambda *_: None)  # as_fp16 leaves those two in float32
    assert min(result.dice.values()) >= MIN_DICE["fp16"]
    monkeypatch.setattr(export_lowered, "as_fp16", all_float16)
    with pytest.raises(SegMateError):  # by the lost organ, or already by logits that are not finite
        lowered(model, "fp16", [volume], lambda *_: None)
    small = bands_through(10.0, tmp_path / "x.onnx")  # the same way, within its range
    assert min(lowered(small, "fp16", [volume], lambda *_: None).dice.values()) >= MIN_DICE["fp16"]
    assert set(DICE_ARITHMETIC) == set(MIN_DICE)
