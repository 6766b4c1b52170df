"""A .safetensors checkpoint as a .onnx, for ONNX Runtime without torch: same document, same answers.

Takes a Checkpoint with one part, writes one file: input "slices" (B, context, H, W) float32, for FiLM also
"z_position" (B,) float32, output "logits" (B, organs, H, W) float32; B free, H and W any multiple of 32. The
file appears only when ONNX Runtime and torch have agreed on it. Needs torch, timm, onnx, onnxscript and
onnxruntime.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes

from SegMateCore.atomic import atomic_path
from SegMateCore.backends import OnnxBackend, TorchBackend
from SegMateCore.checkpoint import Checkpoint, Part
from SegMateCore.checkpoint_document import METADATA_KEY, document_text
from SegMateCore.errors import SegMateError
from SegMateCore.exportable import LogitsOnly
from SegMateCore.onnx_half import store_as_half
from SegMateCore.windows import SIZE_MULTIPLE

OPSET = 18
EXPORT_KEY = "segmate_export"
MAX_LOGIT_DIFFERENCE = 1e-4
MIN_EQUAL_DECISIONS = 0.9999
_CHECKED_SHAPES = ((1, 96, 160), (3, 224, 128))  # (B, H, W), none of them the traced one
_TRACED_SHAPE = (2, 128, 96)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Agreement:
    """How far ONNX Runtime and torch agree on the check inputs.

    max_logit_difference: largest absolute difference. equal_decisions: fraction of (organ, pixel) pairs on
    the same side of the threshold. bytes: size of the file. half_weights: stored as float16.
    """

    max_logit_difference: float
    equal_decisions: float
    bytes: int
    half_weights: bool


def export_onnx(
    checkpoint: Checkpoint, path: str | Path, half_weights: bool = False, progress: Progress | None = None
) -> Agreement:
    """Writes `checkpoint` to `path` and says how well the two engines agree.

    half_weights: large arrays stored as float16 and cast back when the file is opened: half the size,
    computed in float32 all the same; exact where the checkpoint holds float16 already. Raises SegMateError
    for an ensemble, a .onnx, and where the logits differ by more than MAX_LOGIT_DIFFERENCE (with
    half_weights: where fewer than MIN_EQUAL_DECISIONS of the decisions are equal).
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise SegMateError(f"cannot export to {path}: expected the suffix .onnx")
    if checkpoint.is_onnx:
        raise SegMateError(f"{checkpoint.source} is a .onnx already; give the .safetensors it was made from")
    if len(checkpoint.parts) != 1:
        raise SegMateError(
            f"{checkpoint.source} is an ensemble of {len(checkpoint.parts)} networks; "
            "one .onnx holds one network: export its members one by one"
        )
    report = progress or (lambda stage, done, total: None)
    report("build", 0, 3)
    reference = TorchBackend.open(checkpoint, 0, "cpu", "fp32", None)
    report("export", 1, 3)
    network = LogitsOnly(reference.model, _is_film(checkpoint.parts[0]), merge_branches=not half_weights)
    model = _graph(network, checkpoint)
    if half_weights:
        store_as_half(model.graph)
    _set_metadata(model, METADATA_KEY, document_text(checkpoint.document))
    report("check", 2, 3)
    with atomic_path(path) as temporary:
        agreement = _write_checked(model, Path(temporary), reference, checkpoint.parts[0], half_weights)
    report("done", 3, 3)
    return agreement


def _is_film(part: Part) -> bool:
    return part.preprocessing.z_position is not None


def _graph(network: torch.nn.Module, checkpoint: Checkpoint) -> onnx.ModelProto:
    """The traced network with free batch, height and width."""
    context = checkpoint.parts[0].preprocessing.context
    batch, height, width = _TRACED_SHAPE
    rows, columns = torch.export.Dim("rows", min=1, max=128), torch.export.Dim("columns", min=1, max=128)
    axes = {
        0: torch.export.Dim("batch", min=1, max=4096),
        2: SIZE_MULTIPLE * rows,
        3: SIZE_MULTIPLE * columns,
    }
    inputs = [torch.zeros(batch, context, height, width)]
    dynamic, names = [axes], ["slices"]
    if network.film:
        inputs.append(torch.zeros(batch))
        dynamic.append({0: axes[0]})
        names.append("z_position")
    with _quiet_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network.eval(),
                tuple(inputs),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple(dynamic),
                input_names=names,
                output_names=["logits"],
                verbose=False,
                optimize=False,
            )
        except Exception as error:  # the exporter's own classes are private and carry pages of text
            cause = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = (str(cause).strip() or repr(cause)).splitlines()[0]
            name = checkpoint.parts[0].model_name
            raise SegMateError(f"torch cannot export {name} to ONNX: {reason}") from error
    # Not the exporter's own optimiser: it merges norms into weights, whose float16 form would then be another
    # one than the checkpoint's. ONNX Runtime merges them when it opens the file.
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exporter notes for each node the source lines it came from, with the paths of this machine."""
    graph = model.graph
    del graph.metadata_props[:]
    for entry in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    return model


@contextmanager
def _quiet_exporter():
    """torch's exporter logs and warns about its own internals, which no user can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_checked(
    model: onnx.ModelProto, temporary: Path, reference: TorchBackend, part: Part, half_weights: bool
) -> Agreement:
    """Writes the file, runs it, and writes it again with the figures; raises before it can take its name."""
    onnx.save(model, str(temporary))
    agreement = measure_agreement(temporary, reference, part, half_weights)
    _refuse_disagreement(agreement, part)
    _set_metadata(
        model, EXPORT_KEY, json.dumps({**asdict(agreement), "torch": torch.__version__, "opset": OPSET})
    )
    onnx.save(model, str(temporary))
    return agreement


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
