"""predict against the plain loop of the original project: one slice at a time, float32, eager PyTorch.

Takes a checkpoint and a CT, gives seconds of both on the same slices with the same weights, repeat by repeat
in turn, and the Dice between their labels. The plain loop is timed as the original evaluates: network,
sigmoid and threshold of each slice; its windows are made before the clock runs. Ours is timed from the voxels
to the labels, everything included. Needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from SegMateCore.backends import torch_device
from SegMateCore.benchmark.predict_stages import PredictSetting
from SegMateCore.benchmark.timing import Timing
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.demo import dice
from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model
from SegMateCore.predictor import PredictOptions, Progress
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.resampling import Axis, WorkingGrid, resample_hu
from SegMateCore.volume import Volume
from SegMateCore.windows import SIZE_MULTIPLE, context_windows


@dataclass(frozen=True)
class EagerComparison:
    """shape: of the slices that both were given (K, J, I). ours, eager: of whole volumes. ratio: of the
    medians, eager / ours. dice: organ -> Dice between the two results, None where neither has the organ.
    """

    checkpoint: str
    backend: str
    device: str
    precision: str
    shape: tuple[int, int, int]
    ours: Timing
    eager: Timing
    dice: dict[str, float | None]

    @property
    def ratio(self) -> float:
        return self.eager.p50_s / self.ours.p50_s


def compare_with_eager(
    setting: PredictSetting, ct: str | Path, size: int | None = None, repeats: int = 3,
    source: str | Path | None = None, progress: Progress | None = None, cancelled: IsCancelled = None,
) -> EagerComparison:
    """size: rows and columns that the CT's slices are resampled to, None: the checkpoint's own grid.
    source: the .safetensors with the weights of a .onnx (None: the file of that name beside it).

    Raises SegMateError for an ensemble, weights that are not the same, and all that predict refuses.
    """
    if repeats < 1:
        raise SegMateError(f"repeats is {repeats}, expected at least 1")
    report = progress or (lambda stage, done, total: None)
    predictor = setting.open()
    loop = PlainLoop(_torch_side(predictor.checkpoint, setting, source), predictor.backends[0].device)
    volume = on_working_grid(Volume.read(ct), loop.preprocessing, size)
    options = PredictOptions(clean_up=False, chunk=setting.chunk)
    ours, eager = [], []
    for number in range(repeats + 1):
        report("measure", number, repeats + 1)
        started = time.perf_counter()
        labels = predictor.predict(volume, cancelled=cancelled, options=options).labels
        ours.append(time.perf_counter() - started)
        expected, seconds = loop.run(volume.voxels, cancelled)
        eager.append(seconds)
    engine = predictor.backends[0]
    organs = predictor.checkpoint.organs
    return EagerComparison(
        predictor.checkpoint.document["name"], f"{engine.name} {engine.version}", engine.device,
        engine.precision, volume.shape, Timing(tuple(ours[1:])), Timing(tuple(eager[1:])),
        {organ.name: dice(labels == organ.label, expected == organ.label) for organ in organs},
    )  # fmt: skip


def on_working_grid(volume: Volume, preprocessing: Preprocessing, size: int | None) -> Volume:
    """The CT as the network's grid shows it, in whole HU, on a grid that predict leaves as it is.

    size: rows and columns, the slices staying as many as they are; None: the grid of the preprocessing.
    """
    canonical = volume.canonical()
    if size is None:
        grid = preprocessing.working_grid(canonical)
    else:
        count, rows, columns = canonical.shape
        axes = (Axis(count, count, 1.0), Axis(rows, size, rows / size), Axis(columns, size, columns / size))
        grid = WorkingGrid((count, size, size), canonical.affine, axes)
    hu = np.rint(resample_hu(canonical, grid)).astype(np.int16)
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
