"""Which execution provider a user's word means, with stand-ins for the builds of ONNX Runtime."""

from __future__ import annotations

import pytest

from SegMateCore.backends import OnnxBackend
from SegMateCore.engines import found_devices
from SegMateCore.errors import SegMateError
from SegMateCore.onnx_providers import CPU, available_devices, find_provider

CUDA, DML, COREML = "CUDAExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider"


@pytest.fixture
def build(monkeypatch):
    """build(*providers): an ONNX Runtime that has these and the CPU."""
    import onnxruntime

    def make(*providers):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, CPU])

    return make


@pytest.mark.parametrize(
    "has, word, entry, device",
    [
        ((), "auto", CPU, "cpu"),
        ((CUDA, DML, COREML), "auto", (CUDA, {"device_id": 0}), "cuda:0"),
        ((DML,), "auto", DML, "dml"),
        ((COREML,), "auto", CPU, "cpu"),  # only when asked for
        ((COREML,), "coreml", COREML, "coreml"),
        ((CUDA, DML), "dml", DML, "dml"),
        ((CUDA,), "cuda:3", (CUDA, {"device_id": 3}), "cuda:3"),
        ((CUDA,), "cpu", CPU, "cpu"),
    ],
)
def test_words(build, has, word, entry, device):
    build(*has)
    provider = find_provider(word)
    assert (provider.entry, provider.device) == (entry, device)


@pytest.mark.parametrize(
    "word, expected",
    [
        ("cuda", "onnxruntime-gpu"),
        ("dml", "onnxruntime-directml"),
        ("coreml", "on a Mac"),
        ("mps", "expected coreml"),
        ("tpu", "expected one of auto, cpu"),
        ("dml:1", "unknown"),
        ("cuda:x", "unknown"),
        ("cuda:²", "unknown"),
        ("cuda:٣", "unknown"),
        ("cuda:", "unknown"),
        ("mps:", "unknown"),
    ],
)
def test_refusals(build, word, expected):
    build()
    with pytest.raises(SegMateError, match=expected) as caught:
        find_provider(word)
    assert word in str(caught.value)


@pytest.mark.parametrize("name, word", [(CUDA, "cuda:0"), (DML, "dml"), (COREML, "coreml")])
def test_a_provider_that_does_not_load_is_told_or_left_for_the_cpu(
    build, bands_onnx, monkeypatch, name, word
):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(bands_onnx), providers=[CPU])
    build(name)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(SegMateError, match=f"device '{word}' was asked for, but .* cannot load its"):
        OnnxBackend.open(bands_onnx, word, "auto", None)
    backend = OnnxBackend.open(bands_onnx, "auto", "auto", None)
    assert backend.device == "cpu" and backend.precision == "fp32"


def test_directml_is_opened_as_it_needs_and_one_thread_at_a_time(build, bands_onnx, monkeypatch):
    import threading
    import time

    import numpy as np
    import onnxruntime

    real, seen, inside, most = onnxruntime.InferenceSession, [], [], []

    class Session:
        def __init__(self, path, options, providers, enable_fallback):
            seen.append((options.enable_mem_pattern, options.execution_mode, providers))
            self.real = real(path, providers=[CPU])

        def get_providers(self):
            return [DML, CPU]

        def run(self, outputs, feeds):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)  # long enough for another thread to come in, where nothing keeps it out
            found = self.real.run(outputs, feeds)
            inside.pop()
            return found

        def __getattr__(self, name):
            return getattr(self.real, name)

    build(DML)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    backend = OnnxBackend.open(bands_onnx, "auto", "auto", None)
    assert seen == [(False, onnxruntime.ExecutionMode.ORT_SEQUENTIAL, [DML])] and backend.device == "dml"
    windows = np.zeros((1, 3, 64, 64), np.float32)
    threads = [threading.Thread(target=backend.run, args=(windows, None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_devices_are_listed(build, monkeypatch):
    build(DML, COREML)
    assert available_devices() == [
        ("dml", "GPU through DirectML"), ("coreml", "Apple GPU through Core ML"), ("cpu", "CPU"),
    ]  # fmt: skip
    monkeypatch.setattr("SegMateCore.engines.found_engines", lambda: {"onnxruntime": "1", "torch": None})
    assert [row["device"] for row in found_devices()] == ["dml", "coreml", "cpu"]


def test_words_of_onnx_runtime_are_explained_to_torch(tiny_checkpoint):
    pytest.importorskip("timm")
    from SegMateCore.predictor import Predictor

    with pytest.raises(SegMateError, match="dml and coreml are for .onnx"):
        Predictor.from_checkpoint(tiny_checkpoint, device="dml")
