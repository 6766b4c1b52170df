"""What can be pressed, and the reason where it cannot: without Qt."""

from __future__ import annotations

from dataclasses import replace

import pytest


@pytest.fixture
def ready(host):
    """A panel in which everything is chosen."""
    from SegMateSlicerLib.panel.panel_state import PanelState

    return PanelState(volume=True, organs=9, scene_volumes=2, in_sequence=True, segments=9)


def test_everything_can_be_done_when_everything_is_chosen(ready):
    from SegMateSlicerLib.panel import panel_state

    actions = ("segment", "batch_scene", "batch_sequence", "batch_folder", "save_case", "install")
    assert {getattr(panel_state, f"no_{action}")(ready) for action in actions} == {""}


@pytest.mark.parametrize(
    ("action", "change", "word"),
    [
        ("segment", {"volume": False}, "CT volume"),
        ("segment", {"voxels": False}, "empty"),
        ("segment", {"checkpoint_problem": "no checkpoint at x"}, "no checkpoint at x"),
        ("segment", {"organs": 0}, "Tick"),
        ("segment", {"engines": ("onnxruntime",), "engine": "torch"}, ".onnx file"),
        ("segment", {"engines": ("torch",), "engine": "onnxruntime"}, ".safetensors file"),
        ("segment", {"engine": "onnxruntime", "precision": "bf16"}, "here fp32"),
        ("segment", {"engine": "torch", "device": "cpu", "precision": "fp16"}, "graphics card"),
        ("batch_scene", {"scene_volumes": 0}, "scene"),
        ("batch_scene", {"checkpoint_problem": "broken"}, "broken"),
        ("batch_scene", {"running": True}, "Wait"),
        ("batch_sequence", {"in_sequence": False}, "sequence"),
        ("batch_sequence", {"running": True}, "Wait"),
        ("batch_folder", {"organs": 0}, "Tick"),
        ("batch_folder", {"running": True}, "Wait"),
        ("save_case", {"volume": False}, "CT volume"),
        ("save_case", {"segments": 0}, "segmentation"),
        ("save_case", {"organs": 0}, "Tick"),
        ("save_case", {"organs": 0, "checkpoint_problem": "broken"}, "broken"),
        ("save_case", {"running": True}, "Wait"),
        ("install", {"running": True}, "Wait"),
    ],
)
def test_what_cannot_be_done_says_why(ready, action, change, word):
    from SegMateSlicerLib.panel import panel_state

    assert word in getattr(panel_state, f"no_{action}")(replace(ready, **change))


def test_a_run_can_be_cancelled_once_whatever_is_chosen_meanwhile(ready):
    from SegMateSlicerLib.panel.panel_state import no_segment

    running = replace(ready, running=True, volume=False, checkpoint_problem="broken")
    assert no_segment(running) == ""
    assert "Stopping" in no_segment(replace(running, stopping=True))


def test_half_precision_is_for_torch_and_fp16_for_graphics_cards(ready):
    from SegMateSlicerLib.panel.panel_state import no_precision

    torch = replace(ready, engine="torch", device="cuda:0")
    assert [no_precision(torch, p) for p in ("auto", "fast", "fp32", "bf16", "fp16")] == [""] * 5
    assert no_precision(replace(torch, device="cpu"), "bf16") == ""
    # The bundled checkpoint runs on both engines; automatic takes ONNX Runtime, which has no half precision.
    assert "ONNX Runtime" in no_precision(replace(ready, device="cuda:0"), "fp16")
    only_torch = replace(ready, engines=("torch",), device="cuda:0")
    assert no_precision(only_torch, "fp16") == ""


def test_an_onnx_file_keeps_the_precision_it_was_exported_with(ready):
    from SegMateSlicerLib.panel.panel_state import no_precision

    half = replace(ready, engines=("onnxruntime",), onnx_precision="fp16")
    assert [no_precision(half, p) for p in ("auto", "fast", "fp16")] == [""] * 3
    assert "here fp16" in no_precision(half, "fp32") and "here fp16" in no_precision(half, "bf16")
