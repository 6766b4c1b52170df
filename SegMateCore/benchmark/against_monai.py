"""predict against MONAI's whole-body CT segmentation at 3 mm on the same CT: seconds from voxels to labels.

The configuration is that of the model zoo's bundle wholeBody_ct_segmentation: a SegResNet of 18.8 million
parameters and 105 classes, windows of 96 cubed with a quarter of overlap and Gaussian weights, resampled to
3 mm and back. Its weights are random here, which changes what it finds and not how long it takes. Needs monai
and torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.backends import torch_device
from SegMateCore.benchmark.predict_stages import PredictSetting
from SegMateCore.benchmark.timing import Timing
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError
from SegMateCore.predictor import Progress
from SegMateCore.resampling import resample_hu, working_grid
from SegMateCore.volume import Volume

SPACING_MM = (3.0, 3.0, 3.0)
CLASSES = 105
WINDOW = (96, 96, 96)


@dataclass(frozen=True)
class MonaiComparison:
    """Both from voxels to labels on the CT's own grid. ratio: of the medians, MONAI / ours."""

    checkpoint: str
    backend: str
    device: str
    precision: str
    shape: tuple[int, int, int]
    ours: Timing
    monai: Timing

    @property
    def ratio(self) -> float:
        return self.monai.p50_s / self.ours.p50_s


def compare_with_monai(
    setting: PredictSetting, ct: str | Path, repeats: int = 3, progress: Progress | None = None,
    cancelled: IsCancelled = None,
) -> MonaiComparison:
    """One round that warms up, then `repeats` that count, ours and MONAI's in turn.

    Raises SegMateError where monai is not installed, and for all that predict refuses.
    """
    if repeats < 1:
        raise SegMateError(f"repeats is {repeats}, expected at least 1")
    report = progress or (lambda stage, done, total: None)
    predictor = setting.open()
    other = WholeBodySegResNet(predictor.backends[0].device)
    volume = Volume.read(ct).canonical()
    ours, monai = [], []
    for number in range(repeats + 1):
        report("measure", number, repeats + 1)
        started = time.perf_counter()
        predictor.predict(volume, cancelled=cancelled, options=setting.options())
        ours.append(time.perf_counter() - started)
        stop_if(cancelled)
        started = time.perf_counter()
        other.labels(volume)
        monai.append(time.perf_counter() - started)
    engine = predictor.backends[0]
    return MonaiComparison(
        predictor.checkpoint.document["name"], f"{engine.name} {engine.version}", engine.device,
        engine.precision, volume.shape, Timing(tuple(ours[1:])), Timing(tuple(monai[1:])),
    )  # fmt: skip


class WholeBodySegResNet:
    """The bundle's network with random weights, and its way from a CT to labels."""

    def __init__(self, device: str):
        try:
            import torch
            from monai.networks.nets import SegResNet
        except ImportError as error:
            raise SegMateError(
                f"the comparison with MONAI needs monai and torch ({error}):"
                " pip install 'segmate-core[benchmark]'"
            ) from None
        self.device = torch_device(device)
        torch.manual_seed(0)
        self.network = SegResNet(
            spatial_dims=3, in_channels=1, out_channels=CLASSES, init_filters=32, blocks_down=(1, 2, 2, 4),
            blocks_up=(1, 1, 1), dropout_prob=0.2,
        ).eval().to(self.device)  # fmt: skip

    def labels(self, canonical: Volume) -> np.ndarray:
        """Labels (K, J, I) uint8 on the CT's own grid."""
        import torch
        from monai.inferers import sliding_window_inference

        hu = resample_hu(canonical, working_grid(canonical, SPACING_MM))
        inputs = torch.from_numpy(_scaled(hu))[None, None].to(self.device)
        with torch.no_grad():
            scores = sliding_window_inference(
                inputs, WINDOW, 1, self.network, overlap=0.25, mode="gaussian", padding_mode="replicate"
            )
            found = torch.softmax(scores, 1).argmax(1, keepdim=True).to(torch.uint8)
            native = torch.nn.functional.interpolate(found, size=canonical.shape, mode="nearest")
        return native[0, 0].cpu().numpy()


def _scaled(hu: np.ndarray) -> np.ndarray:
    """Zero mean and unit deviation over the voxels that are not zero, then from -1 to 1 over the volume."""
    inside = hu[hu != 0]
    values = np.where(hu != 0, (hu - inside.mean()) / max(float(inside.std()), 1e-8), 0)
    low, high = values.min(), values.max()
    return (2 * (values - low) / max(float(high - low), 1e-8) - 1).astype(np.float32)
