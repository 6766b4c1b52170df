"""Engines: out of memory is told apart from every other error, and answered; devices are never swapped."""

from __future__ import annotations

import numpy as np
import pytest
from fake_network import BandBackend, band_checkpoint, band_predictor
from test_predictor import smooth_ct

from SegMateCore.backends import OnnxBackend, OutOfMemory, TorchBackend
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.predictor import Predictor
from SegMateCore.volume import Volume


def test_out_of_memory_halves_the_chunk_then_goes_to_the_cpu_and_says_so():
    volume = Volume(smooth_ct((16, 20, 24)), np.eye(4))
    expected = band_predictor().predict(volume).labels
    tight = BandBackend("cuda:0", capacity=2)
    result = band_predictor(tight).predict(volume)
    assert (result.labels == expected).all()
    assert max(tight.batches) == 2 and result.provenance["device"] == "cuda:0"
    assert sum("out of memory" in text for text in result.provenance["warnings"]) == 2
    result = band_predictor(BandBackend("cuda:0", capacity=0)).predict(volume)
    assert (result.labels == expected).all()
    assert result.provenance["device"] == "cpu"
    assert any("CPU" in text for text in result.provenance["warnings"])
    with pytest.raises(SegMateError, match="out of memory on the CPU"):
        band_predictor(BandBackend("cpu", capacity=0)).predict(volume)


@pytest.mark.parametrize(
    "message, expected",
    [
        ("[E] Failed to allocate memory for requested buffer of size 1572864", OutOfMemory),
        ("CUDA failure 2: out of memory ; GPU=0", OutOfMemory),
        ("Non-zero status code while running Conv: std::bad_alloc", OutOfMemory),
        ("bfc_arena.cc:376 Available memory of 0 is smaller than requested bytes of 135383040", OutOfMemory),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&handle)", OutOfMemory),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0", OutOfMemory),
        ("CUDNN failure 4006: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", OutOfMemory),
        ("Exception(3) tid(4304) 8007000E Not enough memory resources are available", OutOfMemory),
        ("Exception(3) tid(4304) 8007000E Nicht genügend Speicherressourcen", OutOfMemory),
        ("Exception(1) 887A0005 The GPU device instance has been suspended", SegMateError),
        ("Got invalid dimensions for input: slices", SegMateError),
    ],
)
def test_onnx_runtime_has_no_class_for_out_of_memory_but_says_so(bands_onnx, message, expected):
    class Session:
        def run(self, outputs, feeds):
            raise RuntimeError(message)

    backend = OnnxBackend.open(bands_onnx, "cpu", "fp32", 1)
    backend.session = Session()
    with pytest.raises(expected):
        backend.run(np.zeros((1, 3, 32, 32), np.float32), None)


def test_numpy_out_of_memory_beside_onnx_runtime_is_one_too(bands_onnx):
    class Session:
        def run(self, outputs, feeds):
            return np.empty(1 << 58)

    backend = OnnxBackend.open(bands_onnx, "cpu", "fp32", 1)
    backend.session = Session()
    with pytest.raises(OutOfMemory, match="Unable to allocate"):
        backend.run(np.zeros((1, 3, 32, 32), np.float32), None)


def test_onnx_runtime_that_silently_left_the_gpu_is_noticed(bands_onnx, monkeypatch):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(bands_onnx), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(SegMateError, match="cannot load its CUDA libraries"):
        OnnxBackend.open(bands_onnx, "cuda:0", "auto", None)
    assert OnnxBackend.open(bands_onnx, "auto", "auto", None).device == "cpu"


def test_torch_on_the_cpu_says_out_of_memory_in_words_of_its_own(tiny_checkpoint):
    torch = pytest.importorskip("torch")
    backend = TorchBackend.open(Checkpoint.read(tiny_checkpoint), 0, "cpu", "fp32", None)
    backend.model = lambda *_: torch.empty(1 << 50, dtype=torch.uint8)
    with pytest.raises(OutOfMemory):
        backend.run(np.zeros((1, 3, 32, 32), np.float32), None)


def test_opening_a_network_leaves_the_random_numbers_of_torch_alone(tiny_checkpoint):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    TorchBackend.open(Checkpoint.read(tiny_checkpoint), 0, "cpu", "fp32", None)
    assert torch.equal(torch.rand(4), expected)


def test_a_fallback_of_one_part_shows_in_the_provenance():
    full, half = BandBackend("cuda:0", capacity=0), BandBackend("cuda:0")
    full.precision = half.precision = "fp16"
    volume = Volume(smooth_ct((8, 20, 24)), np.eye(4))
    given = Predictor(band_checkpoint(2), [full, half]).predict(volume).provenance
    assert (given["device"], given["precision"]) == ("cpu, cuda:0", "fp32, fp16")


def test_a_gpu_that_fails_in_the_middle_is_not_swapped_for_the_cpu(bands_onnx, capfd, monkeypatch):
    """ONNX Runtime would print, go on on the CPU, and leave `device` as it was."""
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

    import SegMateCore.backends.onnx_backend as module
    from SegMateCore.onnx_providers import Provider

    class Failing:
        """The C++ session below ONNX Runtime's Python one."""

        def __init__(self, real):
            self.real = real

        def __getattr__(self, name):
            return getattr(self.real, name)

        def run(self, *_):
            runs.append(1)
            raise EPFail("CUDA failure 700: an illegal memory access was encountered")

    runs = []
    backend = OnnxBackend.open(bands_onnx, "cpu", "auto", 1)
    backend.device = "cuda:0"
    backend.session._sess = Failing(backend.session._sess)
    with pytest.raises(SegMateError, match="failed on cuda:0 .*CUDA failure 700.*--device cpu"):
        backend.run(np.zeros((1, 3, 32, 32), np.float32), None)
    assert len(runs) == 1 and capfd.readouterr() == ("", "")

    # Nor at opening: by name it is an error, "auto" says cpu.
    import onnxruntime

    real = onnxruntime.InferenceSession._create_inference_session

    def without_gpu(session, providers, *rest):
        if any("CUDA" in str(provider) for provider in providers):
            raise EPFail("CUDA failure 35: driver version is insufficient")
        return real(session, providers, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", without_gpu)
    cuda = Provider("CUDAExecutionProvider", "cuda:0", "CUDA")
    found = module.find_provider
    monkeypatch.setattr(module, "find_provider", lambda word: found(word) if word == "cpu" else cuda)
    with pytest.raises(SegMateError, match="cannot open it: .*CUDA failure 35"):
        OnnxBackend.open(bands_onnx, "cuda:0", "auto", None)
    assert OnnxBackend.open(bands_onnx, "auto", "auto", None).device == "cpu"
    assert capfd.readouterr() == ("", "")


def test_torch_on_the_cpu_gives_what_the_device_gave(tiny_checkpoint):
    pytest.importorskip("torch")
    first = TorchBackend.open(Checkpoint.read(tiny_checkpoint), 0, "cpu", "fp32", None)
    windows = np.random.default_rng(0).normal(0, 1, (2, 3, 64, 32)).astype(np.float32)
    second = first.on_cpu()
    assert second.device == "cpu" and second.model is not first.model
    np.testing.assert_array_equal(first.run(windows, None), second.run(windows, None))
