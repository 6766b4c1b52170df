"""A .safetensors checkpoint as a .onnx, for ONNX Runtime without torch: same document, same answers.

Takes a Checkpoint with one part, writes one file: input "slices" (B, context, H, W) float32, for FiLM also
"z_position" (B,) float32, output "logits" (B, organs, H, W) float32; B free, H and W any multiple of 32;
computed in fp32, fp16 or int8. The file appears only when ONNX Runtime and torch have agreed on it. Needs
torch, timm, onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from SegMateCore.atomic import atomic_path
from SegMateCore.backends import OnnxBackend, TorchBackend
from SegMateCore.checkpoint import Checkpoint, Part
from SegMateCore.checkpoint_document import METADATA_KEY, document_text
from SegMateCore.errors import SegMateError
from SegMateCore.export_lowered import MIN_DICE, lowered
from SegMateCore.exportable import LogitsOnly
from SegMateCore.onnx_graph import OPSET, onnx_graph
from SegMateCore.onnx_half import store_as_half
from SegMateCore.volume import Volume

EXPORT_KEY = "segmate_export"
MAX_LOGIT_DIFFERENCE = 1e-4
MIN_EQUAL_DECISIONS = 0.9999
PRECISIONS = ("fp32", *MIN_DICE)
_CHECKED_SHAPES = ((1, 96, 160), (3, 224, 128))  # (B, H, W), none of them the traced one

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Agreement:
    """How far ONNX Runtime and torch agree.

    max_logit_difference: largest absolute difference on the check inputs, of the float32 graph.
    equal_decisions: fraction of (organ, pixel) pairs on the same side of the threshold there. bytes: size of
    the file. half_weights: stored as float16. precision: "fp32", "fp16" or "int8". dice: organ -> Dice
    against the float32 labels of whole CTs, and milliseconds: precision -> median time of a slice on this
    CPU; both empty for fp32.
    """

    max_logit_difference: float
    equal_decisions: float
    bytes: int
    half_weights: bool
    precision: str = "fp32"
    dice: dict[str, float] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)


def export_onnx(
    checkpoint: Checkpoint, path: str | Path, half_weights: bool = False, progress: Progress | None = None,
    precision: str = "fp32", volumes: Sequence[Volume] = (),
) -> Agreement:
    """Writes `checkpoint` to `path` and says how well the two engines agree.

    half_weights: large arrays stored as float16 and cast back when the file is opened: half the size,
    computed in float32 all the same; exact where the checkpoint holds float16 already. precision: what it is
    computed in (onnx_precision.py). volumes: CTs on which fp16 and int8 are calibrated and checked, the last
    of several only checked; () for three synthetic ones.
    Raises SegMateError for an ensemble, a .onnx, where the float32 logits differ by more than
    MAX_LOGIT_DIFFERENCE (with half_weights: where fewer than MIN_EQUAL_DECISIONS of the decisions are
    equal), and for all that `lowered` refuses.
    """
    path = Path(path)
    _refuse(checkpoint, path, half_weights, precision)
    report = progress or (lambda stage, done, total: None)
    report("build", 0, 3)
    reference = TorchBackend.open(checkpoint, 0, "cpu", "fp32", None, fast_form=False)
    report("export", 1, 3)
    part = checkpoint.parts[0]
    network = LogitsOnly(reference.model, _is_film(part), merge_branches=not half_weights)
    model = onnx_graph(network, part.preprocessing.context, part.model_name)
    if half_weights:
        store_as_half(model.graph)
    _set_metadata(model, METADATA_KEY, document_text({**checkpoint.document, "precision": "fp32"}))
    report("check", 2, 3)
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))
        agreement = measure_agreement(temporary, reference, part, half_weights)
        _refuse_disagreement(agreement, part)
        if precision != "fp32":
            result = lowered(model, precision, volumes, report)
            model = result.model
            agreement = replace(
                agreement, precision=precision, dice=result.dice, milliseconds=result.milliseconds,
                bytes=model.ByteSize(),
            )
        # Written again with the figures, which include the size of the file without them.
        facts = {**asdict(agreement), "torch": torch.__version__, "opset": OPSET}
        _set_metadata(model, EXPORT_KEY, json.dumps(facts))
        onnx.save(model, str(temporary))
    report("done", 3, 3)
    return agreement


def _refuse(checkpoint: Checkpoint, path: Path, half_weights: bool, precision: str) -> None:
    """What cannot be exported at all."""
    if path.suffix.lower() != ".onnx":
        raise SegMateError(f"cannot export to {path}: expected the suffix .onnx")
    if precision not in PRECISIONS:
        raise SegMateError(f"precision {precision!r} is unknown, expected one of {', '.join(PRECISIONS)}")
    if half_weights and precision != "fp32":
        raise SegMateError(f"half weights are for fp32, {precision} is smaller already: give one of the two")
    if checkpoint.is_onnx:
        raise SegMateError(f"{checkpoint.source} is a .onnx already; give the .safetensors it was made from")
    checkpoint.require_slices("export to .onnx")
    if len(checkpoint.parts) != 1:
        raise SegMateError(
            f"{checkpoint.source} is an ensemble of {len(checkpoint.parts)} networks; "
            "one .onnx holds one network: export its members one by one"
        )


def _is_film(part: Part) -> bool:
    return part.preprocessing.z_position is not None


def measure_agreement(path: Path, reference: TorchBackend, part: Part, half_weights: bool) -> Agreement:
    """Runs both engines on smooth random HU fields of different shapes; both on the CPU in float32."""
    runtime = OnnxBackend.open(path, "cpu", "fp32", None)
    threshold = np.broadcast_to(part.threshold, _organs(part, reference)).reshape(1, -1, 1, 1)
    cut = np.log(threshold / (1 - threshold))
    worst, equal, count = 0.0, 0, 0
    for seed, (batch, height, width) in enumerate(_CHECKED_SHAPES):
        windows = part.preprocessing.normalise(
            smooth_hu((batch, part.preprocessing.context, height, width), part.preprocessing.window_hu, seed)
        )
        z = np.linspace(0, 1, batch, dtype=np.float32) if _is_film(part) else None
        expected, found = reference.run(windows, z), runtime.run(windows, z)
        if found.shape != expected.shape:
            raise SegMateError(
                f"the exported network gives {found.shape}, torch gives {expected.shape}: not written"
            )
        difference = np.abs(found - expected).max()
        worst = max(worst, float(difference)) if np.isfinite(difference) else float("inf")
        equal += int(((found > cut) == (expected > cut)).sum())
        count += found.size
    return Agreement(worst, equal / count, path.stat().st_size, half_weights)


def smooth_hu(shape: tuple[int, int, int, int], window_hu: tuple[float, float], seed: int) -> np.ndarray:
    """A field (B, slices, H, W) float32 in HU: blobs over the whole window, with noise of 20 HU on top."""
    generator = np.random.default_rng(seed)
    batch, slices, height, width = shape
    coarse = torch.from_numpy(generator.random((batch, slices, height // 16, width // 16), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bicubic", align_corners=False
    )
    low, high = window_hu
    return smooth.numpy() * (high - low) + low + generator.normal(0, 20, shape).astype(np.float32)


def _organs(part: Part, reference: TorchBackend) -> int:
    return reference.model.options["organs"]


def _refuse_disagreement(agreement: Agreement, part: Part) -> None:
    figures = (
        f"logits differ by up to {agreement.max_logit_difference:.2g}, "
        f"{100 * agreement.equal_decisions:.4f} % of the decisions are equal"
    )
    if agreement.half_weights and agreement.equal_decisions < MIN_EQUAL_DECISIONS:
        raise SegMateError(
            f"{part.model_name} does not survive float16 weights ({figures}; needed "
            f"{100 * MIN_EQUAL_DECISIONS} %): "
            "export with float32 weights"
        )
    if not agreement.half_weights and not agreement.max_logit_difference <= MAX_LOGIT_DIFFERENCE:
        raise SegMateError(
            f"ONNX Runtime and torch disagree on {part.model_name} ({figures}; allowed "
            f"{MAX_LOGIT_DIFFERENCE:g}): "
            "nothing was written"
        )


def _set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = key, value
