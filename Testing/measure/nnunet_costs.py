"""What nnU-Net itself takes for one CT: seconds and the peak of its process. For volume_model_costs.py.

Runs in nnU-Net's environment (docs/public_models.md), in a process of its own. The model folder is genuine,
its weights are random: they change what is found, not how long it takes.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from nnunet_cases import Network
from nnunet_models import genuine_trainer, write_plans

# isort: split
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes

# Dataset297_TotalSegmentator_total_3mm_1559subj: the patch that public programs for it name; its file holds
# 16.5 million numbers, which is what nnU-Net's planner builds for that patch (five stages).
DATASET = "Dataset297_TotalSegmentator_total_3mm_1559subj"
SPACING_MM = (3.0, 3.0, 3.0)
STRIDES = ((1, 1, 1), *((2, 2, 2),) * 4)
INTENSITIES = {
    "mean": 0.0, "median": 0.0, "std": 400.0, "min": -1024.0, "max": 2000.0, "percentile_00_5": -1000.0,
    "percentile_99_5": 1000.0,
}  # fmt: skip
# Share of the voxels of a patch of noise in which the background shall win: about that of a torso.
BACKGROUND = 0.7


def make_folder(results: str, classes: list[str], patch: list[int], features: int) -> str:
    """A genuine model folder of these classes and random weights below `results`; the path of it."""
    network = Network(
        DATASET, tuple(classes), old_plans=True, reader="NibabelIOWithReorient", spacing_mm=SPACING_MM,
        patch=tuple(patch), strides=STRIDES, features=features,
    )  # fmt: skip
    folder = Path(results) / network.folder
    target = folder / "fold_0" / "checkpoint_final.pth"
    if target.exists():
        return str(folder)
    target.parent.mkdir(parents=True)
    write_plans(folder, network, INTENSITIES, list(patch))
    torch.manual_seed(0)
    trainer = genuine_trainer(network, 0, folder)
    with torch.no_grad():
        logits = trainer.network(torch.randn(1, 1, *patch))[0]
        ahead = (logits[1:].amax(0) - logits[0]).flatten()
        last = trainer.network.decoder.seg_layers[-1]
        last.bias[0] += np.quantile(ahead[:1_000_000].numpy(), BACKGROUND)
    trainer.save_checkpoint(str(target))
    return str(folder)


def measure(folder: str, ct: str, threads: int) -> dict:
    """From voxels in memory to labels in memory; "network_s" of these seconds until the logits are there."""
    torch.set_num_threads(threads)
    choices = {"perform_everything_on_device": False, "allow_tqdm": False}
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, **choices)
    predictor.initialize_from_trained_model_folder(folder, (0,))
    reader = PlansManager(str(Path(folder) / "plans.json")).image_reader_writer_class()
    before = resident_bytes()
    image, properties = reader.read_images([ct])
    run, network_s = predictor.predict_logits_from_preprocessed_data, []

    def timed(data: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        logits = run(data)
        network_s.append(time.perf_counter() - started)
        return logits

    predictor.predict_logits_from_preprocessed_data = timed
    started = time.perf_counter()
    labels = predictor.predict_single_npy_array(image, properties)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "network_s": network_s[0],
        "peak_bytes": peak_resident_bytes(),
        "added_bytes": peak_resident_bytes() - before,
        "classes_found": len(np.unique(labels)) - 1,
        "nnunetv2": version("nnunetv2"),
    }
