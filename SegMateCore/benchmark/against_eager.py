"""predict against the plain loop of the original project: one slice at a time, float32, eager PyTorch.

Takes a checkpoint and a CT, gives seconds of both on the same slices with the same weights and threads,
repeat by repeat in turn, and the Dice between their labels. The plain loop is timed as the original
evaluates: network, sigmoid and threshold of each slice; its windows are made before the clock runs. Ours is
timed as predict is called, from voxels to labels with the checkpoint's clean-up. Both are given slices on the
network's grid, so that resampling is on neither clock. Needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from SegMateCore.backends import torch_device
from SegMateCore.benchmark.our_side import OurSide
from SegMateCore.benchmark.predict_stages import PredictSetting
from SegMateCore.benchmark.threads import torch_threads
from SegMateCore.benchmark.timing import Progress, Timing, in_turn
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.demo import dice
from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model
from SegMateCore.predictor import PredictOptions
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.rectify import rectified
from SegMateCore.resampling import Axis, WorkingGrid, resample_hu
from SegMateCore.volume import Volume
from SegMateCore.windows import SIZE_MULTIPLE, context_windows


@dataclass(frozen=True)
class EagerComparison:
    """threads: of the CPU, for both. shape: of the slices that both were given (K, J, I). ours, eager: of
    whole volumes. clean_up: whether ours, when timed, dropped small islands, which the loop never does.
    ratio: of the medians, eager / ours. dice: organ -> Dice between the two results before any clean-up, None
    where neither has the organ. warnings: what predict said.
    """

    checkpoint: str
    backend: str
    device: str
    precision: str
    threads: int
    chunk: int
    shape: tuple[int, int, int]
    clean_up: bool
    ours: Timing
    eager: Timing
    dice: dict[str, float | None]
    warnings: list[str]

    @property
    def ratio(self) -> float:
        return self.eager.p50_s / self.ours.p50_s


def compare_with_eager(
    setting: PredictSetting, ct: str | Path, size: int | None = None, repeats: int = 3,
    source: str | Path | None = None, progress: Progress | None = None, cancelled: IsCancelled = None,
) -> EagerComparison:
    """One round that warms up and gives the labels to compare, then `repeats` that count.

    size: rows and columns that the CT's slices are resampled to, None: the checkpoint's own grid. source: the
    .safetensors with the weights of a .onnx (None: the file of that name beside it).
    Raises SegMateError for an ensemble, weights that are not the same, and all that predict refuses.
    """
    if repeats < 1:
        raise SegMateError(f"repeats is {repeats}, expected at least 1")
    with torch_threads(setting.thread_count):
        predictor = setting.open()
        loop = PlainLoop(_torch_side(predictor.checkpoint, setting, source), predictor.backends[0].device)
        volume = on_working_grid(Volume.read(ct), loop.preprocessing, size)
        ours = OurSide(predictor, volume, setting, cancelled)
        if progress is not None:
            progress("warm up", 0, 1)
        bare = ours.run(PredictOptions(clean_up=False, chunk=setting.chunk))
        expected, _ = loop.run(volume.voxels, cancelled)
        calls = (ours.timed, lambda: loop.run(volume.voxels, cancelled)[1])
        timings = in_turn(calls, repeats, 0, progress, cancelled)
    facts = ours.provenance
    organs = predictor.checkpoint.organs
    return EagerComparison(
        facts["checkpoint"], facts["backend"], facts["device"], facts["precision"], setting.thread_count,
        setting.chunk, volume.shape, facts["clean_up"], *timings,
        {organ.name: dice(bare == organ.label, expected == organ.label) for organ in organs},
        list(facts["warnings"]),
    )  # fmt: skip


def on_working_grid(volume: Volume, preprocessing: Preprocessing, size: int | None) -> Volume:
    """The CT as the network's grid shows it, in whole HU, on a grid that predict leaves as it is.

    size: rows and columns, the slices staying as many as they are; None: the grid of the preprocessing.
    """
    canonical = (rectified(volume) if volume.is_sheared else volume).canonical()
    if size is None:
        grid = preprocessing.working_grid(canonical)
    else:
        count, rows, columns = canonical.shape
        axes = (Axis(count, count, 1.0), Axis(rows, size, rows / size), Axis(columns, size, columns / size))
        grid = WorkingGrid((count, size, size), canonical.affine, axes)
    whole = np.iinfo(np.int16)
    hu = np.clip(np.rint(resample_hu(canonical, grid)), whole.min, whole.max).astype(np.int16)
    spacing_mm = preprocessing.spacing_mm or canonical.spacing_mm
    return Volume(hu, np.diag([*spacing_mm, 1.0]))


class PlainLoop:
    """The original's way through a volume, with the weights of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, device: str):
        (part,) = checkpoint.parts
        self.preprocessing = part.preprocessing
        self.device = torch_device(device)
        self.labels = np.array([organ.label for organ in checkpoint.organs])
        self.threshold = np.broadcast_to(part.threshold, len(self.labels)).astype(np.float32)
        model = create_model(part.model_name, **{**part.model_options, "pretrained": False})
        model.load_state_dict({key: torch.from_numpy(value) for key, value in checkpoint.weights().items()})
        self.model = model.float().eval().to(self.device)

    def run(self, hu: np.ndarray, cancelled: IsCancelled = None) -> tuple[np.ndarray, float]:
        """Labels (K, J, I) of HU on the working grid, and the seconds of network, sigmoid and threshold."""
        labels = np.zeros(hu.shape, np.uint8)
        threshold = torch.from_numpy(self.threshold)[:, None, None].to(self.device)
        seconds = 0.0
        for k in range(len(hu)):
            stop_if(cancelled)
            inputs, crop = self._inputs(hu, k)
            started = time.perf_counter()
            with torch.no_grad():
                on_device = [value.to(self.device) for value in inputs]
                probabilities = torch.sigmoid(self.model(*on_device)["segmentation"][0])
                masks = (probabilities > threshold).cpu().numpy()
            seconds += time.perf_counter() - started
            # Labels are needed to compare, the original stops at the masks: outside the clock.
            labels[k] = self._labels(probabilities.cpu().numpy(), masks)[crop]
        return labels, seconds

    def _inputs(self, hu: np.ndarray, k: int) -> tuple[list[torch.Tensor], tuple[slice, slice]]:
        """Network inputs of slice k, padded with air, and where the slice lies in them."""
        count, rows, columns = hu.shape
        rule = self.preprocessing
        window = rule.normalise(hu[context_windows(k, k + 1, count, rule.context)])
        down, across = -rows % SIZE_MULTIPLE, -columns % SIZE_MULTIPLE
        top, left = down // 2, across // 2
        air = rule.normalise(np.float32(rule.window_hu[0]))
        margins = ((0, 0), (0, 0), (top, down - top), (left, across - left))
        padded = np.pad(window, margins, constant_values=air)
        if rule.slice_rows == "i":
            padded = np.ascontiguousarray(padded.swapaxes(2, 3))
        z = rule.z_positions(k, k + 1, count)
        inputs = [torch.from_numpy(value) for value in (padded, z) if value is not None]
        return inputs, (slice(top, top + rows), slice(left, left + columns))

    def _labels(self, probabilities: np.ndarray, masks: np.ndarray) -> np.ndarray:
        if self.preprocessing.slice_rows == "i":
            probabilities, masks = probabilities.swapaxes(1, 2), masks.swapaxes(1, 2)
        order = np.argsort(self.labels, kind="stable")  # the lowest label on ties
        highest = np.where(masks, probabilities, 0)[order].argmax(0)
        return np.where(masks.any(0), self.labels[order][highest], 0).astype(np.uint8)


def _torch_side(checkpoint: Checkpoint, setting: PredictSetting, source: str | Path | None) -> Checkpoint:
    """The same weights as torch reads them."""
    if len(checkpoint.parts) != 1:
        raise SegMateError(f"{checkpoint.source} is an ensemble: compare its members one by one")
    if not checkpoint.is_onnx and source is None:
        return checkpoint
    path = source or _beside(checkpoint, setting)
    found = Checkpoint.read(path)
    if found.weights_sha256 != checkpoint.weights_sha256:
        raise SegMateError(
            f"{path} has other weights than {checkpoint.source}: give the .safetensors it was made from"
        )
    return found


def _beside(checkpoint: Checkpoint, setting: PredictSetting) -> Path:
    path = Path(checkpoint.path).with_suffix(".safetensors")
    if path.is_file():
        return path
    found = resolve_checkpoint(setting.checkpoint, "torch")
    if found.suffix == ".onnx":
        raise SegMateError(
            f"{checkpoint.source} has its weights in its graph, and {path} is not there: give the"
            " .safetensors it was made from (--source)"
        )
    return found


def lowest_dice(values: Sequence[float | None]) -> float | None:
    """The lowest of those that there are."""
    found = [value for value in values if value is not None]
    return min(found) if found else None
