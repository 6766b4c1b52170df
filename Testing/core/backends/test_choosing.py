"""Which of two files of a checkpoint is run, and the words --precision takes."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.backends import choosing, cuda_driver
from SegMateCore.backends.choosing import chosen_engine, chosen_file
from SegMateCore.errors import SegMateError

torch_backend = pytest.importorskip("SegMateCore.backends.torch_backend")
torch = pytest.importorskip("torch")
pytest.importorskip("timm")


@pytest.fixture(params=[True, False])
def bf16(request, monkeypatch):
    monkeypatch.setattr(torch_backend, "cpu_has_bf16", lambda: request.param)
    return request.param


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(choosing, "cuda_device_count", lambda: 0)


def test_onnx_runtime_unless_torch_is_worth_its_loading(bf16):
    assert chosen_engine("auto", "auto", "auto")[0] == "onnxruntime"
    assert chosen_engine("auto", "cpu", "fast")[0] == ("torch" if bf16 else "onnxruntime")
    assert chosen_engine("auto", "auto", "bf16")[0] == "torch"
    assert chosen_engine("auto", "mps", "auto")[0] == "torch"
    assert chosen_engine("onnxruntime", "auto", "fast") == ("onnxruntime", "asked for")


def test_cuda_goes_to_the_engine_that_has_it(monkeypatch):
    monkeypatch.setattr(choosing, "available_devices", lambda: [("cpu", "CPU")])
    assert chosen_engine("auto", "cuda:1", "auto")[0] == "torch"
    monkeypatch.setattr(choosing, "available_devices", lambda: [("cuda:0", "GPU"), ("cpu", "CPU")])
    assert chosen_engine("auto", "cuda:1", "auto")[0] == "onnxruntime"


def test_a_gpu_that_only_torch_can_use_decides(monkeypatch):
    monkeypatch.setattr(choosing, "cuda_device_count", lambda: 1)
    engines = {"onnxruntime": "1.31.1", "torch": "2.15.0+cu132"}
    monkeypatch.setattr(choosing, "found_engines", lambda: engines)
    monkeypatch.setattr(choosing, "available_devices", lambda: [("cpu", "CPU")])
    assert chosen_engine("auto", "auto", "auto")[0] == "torch"
    assert chosen_engine("auto", "cpu", "auto")[0] == "onnxruntime"
    engines["torch"] = "2.15.0+cpu"
    assert chosen_engine("auto", "auto", "auto")[0] == "onnxruntime"


def test_the_driver_is_asked_and_need_not_be_there(monkeypatch):
    assert cuda_driver.cuda_device_count() >= 0

    class Driver:
        @staticmethod
        def cuInit(flags):
            return 0

        @staticmethod
        def cuDeviceGetCount(reference):
            reference._obj.value = 2
            return 0

    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda name: Driver)
    assert cuda_driver.cuda_device_count() == 2
    Driver.cuInit = staticmethod(lambda flags: 100)  # CUDA_ERROR_NO_DEVICE
    assert cuda_driver.cuda_device_count() == 0


@pytest.mark.parametrize("missing, engine", [("torch", "onnxruntime"), ("onnxruntime", "torch")])
def test_with_one_engine_there_is_nothing_to_choose(monkeypatch, missing, engine):
    engines = {"onnxruntime": "1.31.1", "torch": "2.15.0+cpu", missing: None}
    monkeypatch.setattr(choosing, "found_engines", lambda: engines)
    assert chosen_engine("auto", "auto", "fast")[0] == engine


def test_a_file_that_is_named_is_the_one_that_runs(bands_onnx):
    path, reason = chosen_file(bands_onnx, "auto", "auto", "fast")
    assert path == bands_onnx and reason == f"onnxruntime: what {bands_onnx.name} runs on"
    assert chosen_file("demo")[0].suffix == ".onnx"
    assert chosen_file("demo", "torch")[0].suffix == ".safetensors"


def test_what_the_words_for_a_precision_mean(bf16):
    chosen = torch_backend.chosen_precision
    assert [chosen(word, "cpu") for word in ("auto", "fast", "bf16")] == [
        "fp32", "bf16" if bf16 else "fp32", "bf16",
    ]  # fmt: skip
    assert [chosen(word, "cuda:0") for word in ("auto", "fast", "bf16")] == ["fp16", "fp16", "bf16"]
    assert [chosen(word, "mps") for word in ("auto", "fast")] == ["fp32", "fp16"]
    with pytest.raises(SegMateError, match="fp16 is not for the CPU"):
        chosen("fp16", "cpu")
    with pytest.raises(SegMateError, match="int8"):
        chosen("int8", "cpu")


@pytest.mark.skipif(not torch_backend.cpu_has_bf16(), reason="no bf16 in this CPU")
def test_the_fast_labels_are_nearly_those_of_full_precision():
    from SegMateCore import Predictor
    from SegMateCore.data.phantom import make_phantom

    ct = make_phantom(seed=5, spacing_mm=(4.0, 4.0, 4.0)).volume
    exact = Predictor.from_checkpoint("demo", "cpu", "torch", "fp32").predict(ct).labels
    predictor = Predictor.from_checkpoint("demo", "cpu", "auto", "fast")
    assert predictor.backends[0].precision == "bf16"
    fast = predictor.predict(ct).labels
    assert (np.bincount(exact.ravel(), minlength=10) > 0).all()
    for label in range(1, 10):
        both = np.count_nonzero((exact == label) & (fast == label))
        assert 2 * both >= 0.99 * (np.count_nonzero(exact == label) + np.count_nonzero(fast == label))
