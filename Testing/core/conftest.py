"""Files that tests can open: a CT, a checkpoint that can be worked out by hand, one with a real network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_network import CENTRES_HU, LOGIT_PER_HU, band_checkpoint
from small_ct import write_ct

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.checkpoint_document import METADATA_KEY, document_text
from SegMateCore.organs import NINE
from SegMateCore.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def bands_onnx(tmp_path_factory) -> Path:
    """An .onnx checkpoint with the arithmetic of fake_network: each organ is a band of HU. Needs no torch."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["slices", "axis"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["mean", "centres"], ["distance"]),
            helper.make_node("Abs", ["distance"], ["apart"]),
            helper.make_node("Mul", ["apart", "slope"], ["fall"]),
            helper.make_node("Sub", ["peak", "fall"], ["logits"]),
        ],
        "bands",
        [helper.make_tensor_value_info("slices", TensorProto.FLOAT, ["batch", 3, "rows", "columns"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 9, "rows", "columns"])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            constant("centres", CENTRES_HU[None, :, None, None]),
            constant("slope", LOGIT_PER_HU),
            constant("peak", 6),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, document_text(band_checkpoint().document)
    path = tmp_path_factory.mktemp("checkpoints") / "bands.onnx"
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A .safetensors checkpoint with a real network and random weights. Needs torch and timm."""
    torch = pytest.importorskip("torch")
    from SegMateCore.models import create_model

    torch.manual_seed(0)
    model = create_model("unet_resnet10t")
    document = {
        "name": "tiny",
        "organs": NINE.to_list(),
        "demonstration": True,
        "training": {"seed": 0},
        "licences": [{"what": "weights", "licence": "Apache-2.0"}],
        "parts": [
            {
                "model": {"name": model.name, "options": model.options},
                "preprocessing": Preprocessing((6.0, 6.0, 6.0), (-1000, 400), (300, 1 / 700)).to_dict(),
            }
        ],
    }
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    Checkpoint.write(path, document, [weights])
    return path


@pytest.fixture
def ct(tmp_path) -> Path:
    """A small CT in a folder of its own."""
    path = tmp_path / "ct.nii.gz"
    write_ct(path, 1)
    return path
