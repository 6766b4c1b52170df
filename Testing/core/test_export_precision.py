"""fp16 and int8 exports: labels stay or nothing is written, and predict takes the file as any other."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")

from SegMateCore.backends import OnnxBackend  # noqa: E402
from SegMateCore.bundled import resolve_checkpoint  # noqa: E402
from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.cli import main  # noqa: E402
from SegMateCore.data.phantom import make_phantom  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.export import EXPORT_KEY, PRECISIONS  # noqa: E402
from SegMateCore.export_labels import LabelAgreement, SliceRecorder  # noqa: E402
from SegMateCore.export_lowered import MIN_DICE, lowered  # noqa: E402
from SegMateCore.onnx_metadata import read_onnx_metadata  # noqa: E402
from SegMateCore.onnx_precision import Windows, as_fp16, as_int8, fused  # noqa: E402
from SegMateCore.predictor import Predictor  # noqa: E402
from SegMateCore.volume import Volume  # noqa: E402


@pytest.fixture(scope="module")
def volumes():
    """Part of a torso, coarse: what counts is that the organs are there."""
    return [make_phantom(2001, 4.0, shape=(39, 90, 108)).volume]


@pytest.fixture(scope="module")
def exports(volumes, tmp_path_factory):
    """precision -> (path, what was measured), of the bundled network."""
    folder = tmp_path_factory.mktemp("exports")
    plain = resolve_checkpoint("demo", "onnxruntime")
    found = {"fp32": (plain, None)}
    for precision in MIN_DICE:
        result = lowered(onnx.load(str(plain)), precision, volumes, lambda *_: None)
        onnx.save(result.model, str(folder / f"{precision}.onnx"))
        found[precision] = (folder / f"{precision}.onnx", result)
    return found


@pytest.mark.parametrize("precision, megabytes", [("fp16", 13), ("int8", 6.6)])
def test_labels_stay_and_the_file_shrinks(exports, precision, megabytes):
    path, result = exports[precision]
    assert len(result.dice) >= 6 and min(result.dice.values()) >= MIN_DICE[precision]
    assert set(result.milliseconds) == {"fp32", precision} and min(result.milliseconds.values()) > 0
    assert path.stat().st_size < 1e6 * megabytes  # 25 MB in float32
    # The Dice again, of a CT that the conversion has not seen, over two runs of predict.
    volume = make_phantom(2010, 4.0, shape=(39, 90, 108)).volume
    plain = exports["fp32"][0]
    expected, found = (Predictor.from_checkpoint(p).predict(volume) for p in (plain, path))
    scored = [organ for organ in expected.organs if (expected.labels == organ.label).sum() > 50]
    assert len(scored) > 4
    for organ in scored:
        a, b = expected.labels == organ.label, found.labels == organ.label
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.96, organ.name
    assert found.provenance["weights_sha256"] == expected.provenance["weights_sha256"]


def test_the_graphs_are_what_they_say(exports):
    kinds = {}
    for precision in MIN_DICE:
        path, _ = exports[precision]
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        weights = [t for t in model.graph.initializer if np.prod(t.dims) >= 1024]
        kinds[precision] = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in weights}
        assert [entry.name for entry in model.graph.output] == ["logits"]
        for entry in (*model.graph.input, *model.graph.output):
            assert entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert {entry.domain for entry in model.opset_import} == {""}
        assert b".py" not in path.read_bytes() and b"/tmp" not in path.read_bytes()
    assert kinds["fp16"] == {"FLOAT16"} and "INT8" in kinds["int8"]
    quantised = {node.op_type for node in onnx.load(str(exports["int8"][0])).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= quantised


def test_the_document_says_the_precision_and_predict_tells_it(exports, monkeypatch):
    machine = {"x86_64": "fp32 (fp16 weights)", "arm64": "fp16"}
    plain = Checkpoint.read(exports["fp32"][0]).document
    for precision, (path, _) in exports.items():
        if precision != "fp32":
            assert Checkpoint.read(path).document == {**plain, "precision": precision}
        for name, expected in machine.items():
            monkeypatch.setattr("platform.machine", lambda name=name: name)
            told = OnnxBackend.open(path, "cpu", "auto", 1).precision
            assert told == (expected if precision == "fp16" else precision)
        assert OnnxBackend.open(path, "cpu", precision, 1).on_cpu().device == "cpu"
        other = "fp32" if precision != "fp32" else "int8"
        with pytest.raises(SegMateError, match=f"{other}.*holds a network in {precision}"):
            OnnxBackend.open(path, "cpu", other, 1)


def test_what_changes_the_labels_is_refused(volumes, monkeypatch):
    def spoilt(model, windows, keep_ends=False):
        tried.append(keep_ends)
        made = as_int8(model, windows[:1], keep_ends)
        for tensor in made.graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, 0), tensor.name))
        return made

    tried = []
    monkeypatch.setattr("SegMateCore.export_lowered.as_int8", spoilt)
    model = onnx.load(str(resolve_checkpoint("demo", "onnxruntime")))
    with pytest.raises(SegMateError, match="int8 changes the labels too much: Dice of .* needed 0.98"):
        lowered(model, "int8", volumes, lambda *_: None)
    assert tried == [False, True]


def test_a_network_that_finds_nothing_cannot_be_compared(bands_onnx):
    model = onnx.load(str(bands_onnx))
    hu = np.full((6, 40, 40), -990, np.int16)
    hu[2:4] = 900  # no organ of the stand-in network lies there
    with pytest.raises(SegMateError, match="finds no organ in the 1 CTs.*--calibrate"):
        lowered(model, "fp16", [Volume(hu, np.eye(4))], lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_whole_way_by_command(precision, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    volume = make_phantom(2001, 4.0, shape=(39, 90, 108)).volume
    volume.write(tmp_path / "ct.nii.gz")
    words = ["convert", "demo", "out.onnx", "--precision", precision, "--quiet"]
    words += [] if precision == "fp32" else ["--calibrate", "ct.nii.gz"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert ("against fp32: Dice of" in told) == (precision != "fp32") and "MB" in told
    figures = json.loads(read_onnx_metadata(tmp_path / "out.onnx")[EXPORT_KEY])
    assert figures["precision"] == precision and figures["max_logit_difference"] <= 1e-4
    source = Checkpoint.read(resolve_checkpoint("demo", "torch"))
    assert Checkpoint.read("out.onnx").document == {**source.document, "precision": precision}
    assert main(["predict", "ct.nii.gz", "-o", "labels.nii.gz", "--checkpoint", "out.onnx", "--quiet"]) == 0


def small_graph(scale: float) -> onnx.ModelProto:
    """slices -> Conv -> BatchNormalization -> Mul by `scale` -> Conv "middle" -> Conv -> logits."""
    def constant(name, values):
        return onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)

    rng = np.random.default_rng(0)
    weight = {name: rng.normal(0, 0.3, (4, c, 3, 3)) for name, c in (("w1", 3), ("w2", 4), ("w3", 4))}
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["slices", "w1"], ["a"], name="first", pads=[1] * 4),
        node("BatchNormalization", ["a", "one", "zero", "zero", "one"], ["b"], name="norm"),
        node("Mul", ["b", "scale"], ["c"], name="scaled"),
        node("Relu", ["c"], ["d"], name="relu"),
        node("Conv", ["d", "w2"], ["e"], name="middle", pads=[1] * 4),
        node("Relu", ["e"], ["f"], name="relu2"),
        node("Conv", ["f", "w3"], ["g"], name="last", pads=[1] * 4),
        node("Identity", ["g"], ["logits"], name="out"),
    ]
    constants = [*(constant(n, v) for n, v in weight.items()), constant("one", np.ones(4)),
                 constant("zero", np.zeros(4)), constant("scale", scale)]
    value = onnx.helper.make_tensor_value_info
    slices, logits = value("slices", 1, ["b", 3, "h", "w"]), value("logits", 1, ["b", 4, "h", "w"])
    graph = onnx.helper.make_graph(nodes, "g", [slices], [logits], constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


WINDOWS = [Windows(np.random.default_rng(1).normal(0, 1, (1, 3, 32, 32)).astype(np.float32), None)]


def inputs_of(model, name):
    """Name of the node that makes the first input of the node called `name`, and its kind."""
    node = next(node for node in model.graph.node if node.name == name)
    return [maker.op_type for maker in model.graph.node if node.input[0] in maker.output]


def test_fusing_merges_norms_and_keeps_the_answer():
    import onnxruntime

    model = small_graph(2.0)
    merged = fused(model)
    assert "BatchNormalization" not in {node.op_type for node in merged.graph.node}
    both = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, WINDOWS[0].feeds()
        )[0]
        for m in (model, merged)
    ]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-4)


def test_values_beyond_float16_stay_in_float32():
    """Where activations of 1e5 would be infinite in float16, those nodes alone are left as they are."""
    import onnxruntime

    for scale, kept in ((1.0, False), (1e5, True)):
        model = small_graph(scale)
        made = as_fp16(model, WINDOWS)
        kinds = {t.name: t.data_type for t in made.graph.initializer}
        assert (kinds["w2"] == onnx.TensorProto.FLOAT) == kept
        assert kinds["w1"] == onnx.TensorProto.FLOAT16
        sessions = [
            onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
            for m in (model, made)
        ]
        expected, found = (session.run(None, WINDOWS[0].feeds())[0] for session in sessions)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())


def test_first_and_last_convolutions_can_be_left_alone():
    for keep, kinds in ((False, ["DequantizeLinear"]), (True, [])):
        model = as_int8(fused(small_graph(1.0)), WINDOWS, keep_ends=keep)
        assert inputs_of(model, "first") == kinds
        assert inputs_of(model, "middle") == ["DequantizeLinear"]
        weights = next(node for node in model.graph.node if node.name == "last").input[1]
        stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        assert (stored.get(weights) == onnx.TensorProto.FLOAT) == keep


def test_agreement_is_dice_over_all_volumes_of_organs_large_enough():
    agreement = LabelAgreement({"liver": 5, "aorta": 8, "trachea": 9})
    for expected, found in (([5, 5, 0, 0], [5, 0, 0, 0]), ([5, 5, 5, 8], [5, 5, 5, 5])):
        agreement.add(np.array(expected), np.array(found), voxel_ml=0.9)
    # liver: 4 of 5 expected and 5 found in common; the aorta's 0.9 ml are too few, the trachea is nowhere.
    assert agreement.dice() == {"liver": pytest.approx(2 * 4 / (5 + 5))}


def test_the_recorder_keeps_every_third_window():
    class Echo:
        device = "cpu"

        def run(self, windows, z):
            return windows

    recorder = SliceRecorder(Echo(), 3)
    windows = np.arange(8, dtype=np.float32)[:, None, None, None]
    z = np.arange(8, dtype=np.float32) / 10
    assert recorder.device == "cpu" and recorder.run(windows[:5], z[:5]) is not None
    recorder.run(windows[5:], z[5:])
    assert [int(window.slices[0, 0, 0, 0]) for window in recorder.windows] == [0, 3, 6]
    assert [round(float(window.feeds()["z_position"][0]), 1) for window in recorder.windows] == [0, 0.3, 0.6]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["x.safetensors", "--precision", "int8"], "is for a .onnx"),
        (["x.onnx", "--precision", "int8", "--half"], "give one of the two"),
        (["x.onnx", "--calibrate", "ct.nii.gz"], "--calibrate is for --precision fp16 or int8"),
        (["x.onnx", "--precision", "int8", "--calibrate", "no.nii.gz"], "no.nii.gz"),
        (["x.onnx", "--precision", "int4"], "int4"),
    ],
)
def test_refusals(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "demo", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error and not list(tmp_path.iterdir())


def test_torch_cannot_be_asked_for_int8(capsys, ct, tiny_checkpoint, tmp_path):
    words = ["predict", str(ct), "-o", str(tmp_path / "o.nii.gz"), "--checkpoint", str(tiny_checkpoint)]
    assert main([*words, "--precision", "int8"]) == 2
    assert "segmate convert" in capsys.readouterr().err
