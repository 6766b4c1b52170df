"""predict against MONAI's whole-body CT segmentation at 3 mm on the same CT: seconds from voxels to labels.

The configuration is that of the model zoo's bundle wholeBody_ct_segmentation: a SegResNet of 18.8 million
parameters and 105 classes, windows of 96 cubed with a quarter of overlap and Gaussian weights, resampled to
3 mm and back; on CUDA in autocast. Its weights are random here, which changes what it finds and not how long
it takes. Both sides get the same threads. Needs monai and torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.backends import torch_device
from SegMateCore.benchmark.our_side import OurSide
from SegMateCore.benchmark.predict_stages import PredictSetting
from SegMateCore.benchmark.threads import torch_threads
from SegMateCore.benchmark.timing import Progress, Timing, in_turn
from SegMateCore.cancelling import IsCancelled
from SegMateCore.errors import SegMateError
from SegMateCore.resampling import resample_hu, working_grid
from SegMateCore.volume import Volume

SPACING_MM = (3.0, 3.0, 3.0)
CLASSES = 105
WINDOW = (96, 96, 96)


@dataclass(frozen=True)
class MonaiComparison:
    """Both from voxels to labels on the CT's own grid, with so many threads of the CPU. precision,
    monai_precision: of the networks. clean_up: whether ours dropped small islands, which MONAI's way never
    does. ratio: of the medians, MONAI / ours. warnings: what predict said.
    """

    checkpoint: str
    backend: str
    device: str
    precision: str
    monai_precision: str
    threads: int
    chunk: int
    shape: tuple[int, int, int]
    clean_up: bool
    ours: Timing
    monai: Timing
    warnings: list[str]

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
    _require_monai()
    with torch_threads(setting.thread_count):
        predictor = setting.open()
        other = WholeBodySegResNet(predictor.backends[0].device)
        volume = Volume.read(ct).canonical()
        ours = OurSide(predictor, volume, setting, cancelled)
        timings = in_turn((ours.timed, lambda: other.timed(volume)), repeats, 1, progress, cancelled)
    facts = ours.provenance
    return MonaiComparison(
        facts["checkpoint"], facts["backend"], facts["device"], facts["precision"], other.precision,
        setting.thread_count, setting.chunk, volume.shape, facts["clean_up"], *timings,
        list(facts["warnings"]),
    )  # fmt: skip


def _require_monai() -> None:
    try:
        import torch  # noqa: F401
        from monai.networks.nets import SegResNet  # noqa: F401
    except ImportError as error:
        raise SegMateError(
            f"the comparison with MONAI needs monai and torch ({error}):"
            " pip install 'segmate-core[benchmark]'"
        ) from None


class WholeBodySegResNet:
    """The bundle's network with random weights, and its way from a CT to labels."""

    def __init__(self, device: str):
        import torch
        from monai.networks.nets import SegResNet

        self.device = torch_device(device)
        self.on_cuda = self.device.startswith("cuda")
        self.precision = "fp16 (autocast)" if self.on_cuda else "fp32"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = SegResNet(
                spatial_dims=3, in_channels=1, out_channels=CLASSES, init_filters=32,
                blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), dropout_prob=0.2,
            )  # fmt: skip
        self.network = network.eval().to(self.device)

    def timed(self, canonical: Volume) -> float:
        """Seconds of `labels`."""
        started = time.perf_counter()
        self.labels(canonical)
        return time.perf_counter() - started

    def labels(self, canonical: Volume) -> np.ndarray:
        """Labels (K, J, I) uint8 on the CT's own grid."""
        import torch
        from monai.inferers import sliding_window_inference

        hu = resample_hu(canonical, working_grid(canonical, SPACING_MM))
        inputs = torch.from_numpy(_scaled(hu))[None, None].to(self.device)
        # As the bundle's inference.json has them: "amp" (MONAI's evaluator: on CUDA alone), cudnn.benchmark.
        amp = torch.autocast("cuda", enabled=self.on_cuda)
        tuned = torch.backends.cudnn.flags(enabled=True, benchmark=True)
        with torch.no_grad(), amp, tuned:
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
