"""What half weights may change, with graphs whose answer can be worked out in place of exported networks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")

from bands_graph import write_bands  # noqa: E402
from fake_network import CENTRES_HU, band_checkpoint  # noqa: E402

from SegMateCore import export  # noqa: E402
from SegMateCore.backends import OnnxBackend  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.export_lowered import half_dice  # noqa: E402
from SegMateCore.volume import Volume  # noqa: E402

# Logits of the stand-in network are 6 at most, so that 20 below that an organ is never found at all.
NEVER = -20.0


def agreement(folder, shift, half=True, common=0.0):
    """Of a graph whose channels are `shift` off against one where they are not; both `common` lower."""
    plain = write_bands(folder / "plain.onnx", shift=common)
    moved = write_bands(folder / "moved.onnx", shift=common + np.asarray(shift))
    reference = OnnxBackend.open(plain, "cpu", "fp32", 1)
    reference.model = SimpleNamespace(options={"organs": 9})
    return export.measure_agreement(moved, reference, band_checkpoint().parts[0], half)


def only(channel: int, value: float) -> np.ndarray:
    return np.where(np.arange(9) == channel, value, 0.0)


def test_an_organ_that_is_lost_without_one_decision_that_differs_is_noticed(tmp_path):
    """Where the check inputs show nothing of an organ, its decisions are "no", however wrong its logits."""
    found = agreement(tmp_path, only(6, -1000.0), common=NEVER)
    assert found.equal_decisions == 1.0 and found.organ_difference == pytest.approx(1000, rel=1e-5)
    with pytest.raises(SegMateError, match="does not survive float16 weights .* by 1e\\+03 or less"):
        export._refuse_disagreement(found, band_checkpoint().parts[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_never_written(tmp_path, value):
    for half in (True, False):
        found = agreement(tmp_path, only(2, value), half, common=NEVER)
        assert found.max_logit_difference == found.organ_difference == np.inf
        with pytest.raises(SegMateError, match="differ by up to inf"):
            export._refuse_disagreement(found, band_checkpoint().parts[0])


def test_rounding_is_allowed_and_stated(tmp_path):
    found = agreement(tmp_path, only(3, 0.02), common=NEVER)
    assert found.organ_difference == pytest.approx(0.02, abs=1e-4)
    export._refuse_disagreement(found, band_checkpoint().parts[0])


def test_half_weights_are_held_to_the_labels_of_cts(tmp_path):
    """Bands of 30 HU around each centre; a shift of the logit by 2 makes one 5 HU wider on either side."""
    rng = np.random.default_rng(0)
    hu = np.full((6, 40, 40), -1000, np.int16)
    hu[:, 4:36, 4:36] = (CENTRES_HU[4] + rng.uniform(-18, 18, (1, 32, 32))).astype(np.int16)
    volume = Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0]))
    plain = onnx.load(str(write_bands(tmp_path / "plain.onnx")))
    same = onnx.load(str(write_bands(tmp_path / "same.onnx", shift=0.001)))
    wider = onnx.load(str(write_bands(tmp_path / "wider.onnx", shift=only(4, 2.0))))
    silent = lambda *_: None  # noqa: E731
    (dice,) = half_dice(plain, same, [volume], silent).values()
    assert dice > 0.999
    with pytest.raises(SegMateError, match="float16 weights change the labels too much: Dice of "):
        half_dice(plain, wider, [volume], silent)
    bones = np.full((6, 40, 40), -990, np.int16)
    bones[2:4] = 900  # no organ of the stand-in network lies there
    empty = Volume(bones, np.eye(4))
    assert half_dice(plain, wider, [empty], silent) == {}
