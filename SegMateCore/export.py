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
from SegMateCore.export_lowered import DICE_ARITHMETIC, MIN_DICE, half_dice, lowered
from SegMateCore.exportable import LogitsOnly
from SegMateCore.onnx_graph import OPSET, onnx_graph
from SegMateCore.onnx_half import store_as_half
from SegMateCore.onnx_metadata import EXPORT_KEY, graph_entry, graph_sha256
from SegMateCore.volume import Volume

MAX_LOGIT_DIFFERENCE = 1e-4
# Of half weights, whose rounding shows everywhere a little, by some 0.01. The bound on logits holds for each
# organ by itself: most decisions are "nothing", and stay equal when an organ is lost.
MIN_EQUAL_DECISIONS = 0.9999
MAX_ORGAN_DIFFERENCE = 0.1
_ORGAN_QUANTILE = 0.999
PRECISIONS = ("fp32", *MIN_DICE)
_CHECKED_SHAPES = ((1, 96, 160), (3, 224, 128))  # (B, H, W), none of them the traced one

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Agreement:
    """How far ONNX Runtime and torch agree.

    max_logit_difference: largest absolute difference on the check inputs, of the float32 graph; infinite
    where one is not finite. organ_difference: that which 99.9 % of an organ's pixels stay below, of the worst
    organ. equal_decisions: fraction of (organ, pixel) pairs on the same side of the threshold there. bytes:
    size of the file. half_weights: stored as float16. precision: "fp32", "fp16" or "int8". dice: organ ->
    Dice against the float32 labels of whole CTs, and milliseconds: precision -> median time of a slice on
    this CPU; both empty for fp32. half_dice: organ -> Dice of half weights against float32 ones on whole
    CTs; empty without them, and where nothing was rounded.
    """

    max_logit_difference: float
    organ_difference: float
    equal_decisions: float
    bytes: int
    half_weights: bool
    precision: str = "fp32"
    dice: dict[str, float] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    half_dice: dict[str, float] = field(default_factory=dict)


def export_onnx(
    checkpoint: Checkpoint, path: str | Path, half_weights: bool = False, progress: Progress | None = None,
    precision: str = "fp32", volumes: Sequence[Volume] = (),
) -> Agreement:
    """Writes `checkpoint` to `path` and says how well the two engines agree.

    half_weights: large arrays stored as float16 and cast back when the file is opened: half the size,
    computed in float32 all the same; exact where the checkpoint holds float16 already. precision: what it is
    computed in (onnx_precision.py). volumes: CTs on which fp16 and int8 are calibrated and checked, the last
    of several only checked, and half weights are checked; () for three synthetic ones.
    Raises SegMateError for an ensemble, a .onnx, where the float32 logits differ by more than
    MAX_LOGIT_DIFFERENCE (with half_weights: where fewer than MIN_EQUAL_DECISIONS of the decisions are
    equal, the logits of an organ differ by more than MAX_ORGAN_DIFFERENCE, or labels of whole CTs change),
    and for all that `lowered` refuses.
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
    _set_metadata(model, METADATA_KEY, document_text({**checkpoint.document, "precision": "fp32"}))
    plain = onnx.ModelProto.FromString(model.SerializeToString()) if half_weights else model
    if half_weights:
        store_as_half(model.graph)
    report("check", 2, 3)
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))
        agreement = measure_agreement(temporary, reference, part, half_weights)
        _refuse_disagreement(agreement, part)
        if half_weights and agreement.max_logit_difference > MAX_LOGIT_DIFFERENCE:
            agreement = replace(agreement, half_dice=half_dice(plain, model, volumes, report))
        if precision != "fp32":
            result = lowered(model, precision, volumes, report)
            model = result.model
            agreement = replace(
                agreement, precision=precision, dice=result.dice, milliseconds=result.milliseconds,
                bytes=model.ByteSize(),
            )
        # Written again with the figures, which include the size of the file without them.
        graph = graph_entry(graph_sha256(model.SerializeToString()))
        facts = {
            **asdict(agreement), **graph, "dice_arithmetic": DICE_ARITHMETIC.get(precision),
            "torch": torch.__version__, "opset": OPSET,
        }  # fmt: skip
        _set_metadata(model, EXPORT_KEY, json.dumps(facts, allow_nan=False))
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
    differences, equal, count = [], 0, 0
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
        differences.append(np.abs(found - expected).swapaxes(0, 1).reshape(found.shape[1], -1))
        equal += int(((found > cut) == (expected > cut)).sum())
        count += found.size
    by_organ = np.concatenate(differences, axis=1)
    largest = organ = float("inf")
    if np.isfinite(by_organ).all():
        largest = float(by_organ.max())
        organ = float(np.quantile(by_organ, _ORGAN_QUANTILE, axis=1).max())
    return Agreement(largest, organ, equal / count, path.stat().st_size, half_weights)


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
        f"logits differ by up to {agreement.max_logit_difference:.2g}, those of the worst organ by"
        f" {agreement.organ_difference:.2g} or less nearly everywhere, "
        f"{100 * agreement.equal_decisions:.4f} % of the decisions are equal"
    )
    close = agreement.organ_difference <= MAX_ORGAN_DIFFERENCE
    if agreement.half_weights and not (close and agreement.equal_decisions >= MIN_EQUAL_DECISIONS):
        raise SegMateError(
            f"{part.model_name} does not survive float16 weights ({figures}; needed "
            f"{MAX_ORGAN_DIFFERENCE} and {100 * MIN_EQUAL_DECISIONS} %): "
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
