"""Multiply-accumulates per second of matrices."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from SegMateCore.backends.packed_convolution import PackedConvolution  # noqa: E402
from SegMateCore.benchmark import matmul_rate as measured  # noqa: E402
from SegMateCore.benchmark.timing import Timing  # noqa: E402


def test_the_rate_is_that_of_the_faster_way(monkeypatch):
    given = []

    def timings(calls, repeats, warm_up):
        given.append(len(calls))
        return [Timing((0.5, 0.5, 9.0)), Timing((0.25, 0.25, 0.25))][: len(calls)]

    monkeypatch.setattr(measured, "interleaved", timings)
    expected = 0.25 if PackedConvolution.is_supported(torch.float32) else 0.5
    assert measured.matmul_rate("cpu", "fp32") == 1024**3 / expected
    assert given == [1 + PackedConvolution.is_supported(torch.float32)]


@pytest.mark.skipif(not PackedConvolution.is_supported(torch.float32), reason="this torch cannot pack")
def test_the_convolution_does_as_many_sums_as_the_matrices():
    from torch.utils.flop_counter import FlopCounterMode

    size = 64
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        torch.randn(size, size) @ torch.randn(size, size)
    with torch.inference_mode():
        result = measured._as_convolution(size, torch.float32)()
    # Each number of the result is a sum over all channels.
    assert 2 * result.numel() * size == counter.get_total_flops()


def test_the_callers_random_numbers_stay(monkeypatch):
    monkeypatch.setattr(measured, "interleaved", lambda *_: [Timing((1.0,))])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measured.matmul_rate("cpu", "fp32")
    assert torch.equal(torch.rand(1), expected)
