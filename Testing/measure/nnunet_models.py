"""Tiny models in nnU-Net's own format: fitted to phantoms for some seconds, saved by nnU-Net's trainer.

Runs in nnU-Net's environment, for nnunet_reference.py and nnunet_costs.py. Network, loss, preprocessing and
the checkpoint are nnU-Net's; only the loop around them is ours.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
from nnunet_cases import CONFIGURATION, Network

# nnU-Net wants these folders to be named, and compiles networks unless told otherwise.
for _name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(_name, "/nonexistent")
os.environ.setdefault("nnUNet_def_n_proc", "1")
os.environ["nnUNet_compile"] = "0"

import torch  # noqa: E402
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name  # noqa: E402


@dataclass(frozen=True)
class Fitting:
    """How a network is fitted.

    phantoms: the folder with even/ and thick/; source: that of the check's input in it; start: a checkpoint
    whose tensors are taken over where names and shapes agree, None: from nothing.
    """

    phantoms: Path
    source: str
    steps: int
    start: Path | None
    seed: int


def checkpoint_path(network: Network, fold: int, models: Path) -> Path:
    return models / network.folder / f"fold_{fold}" / "checkpoint_final.pth"


def fit(network: Network, fold: int, models: Path, how: Fitting) -> None:
    """One fold of a model folder, unless it is there: fitted here, saved by nnU-Net's trainer."""
    target, folder = checkpoint_path(network, fold, models), models / network.folder
    if target.exists():
        return
    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    # The input of the check is among them: what matters is that organs are found, not that they are unseen.
    kind = "thick" if network.flat_stages else "even"
    cases = sorted((how.phantoms / kind).glob("*/ct.nii.gz"))[:2]
    cases += (how.phantoms / how.source).glob("*/ct.nii.gz")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_plans(folder, network, *statistics(cases))
    trainer = genuine_trainer(network, fold, folder)
    if how.start:
        take_over(trainer.network, how.start)
    arrays = [preprocessed(path, network, trainer) for path in cases]
    optimiser = torch.optim.AdamW(trainer.network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, how.steps, pct_start=0.1)
    started = time.time()
    for _ in range(how.steps):
        images, labels = batch(arrays, network, rng)
        loss = trainer.loss(trainer.network(images), targets(labels, network))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    genuine_epoch(trainer, arrays, rng, float(loss.detach()), network)
    with torch.no_grad():
        # Numbers that float16 holds: half the size in the repository, and nothing else.
        for parameter in trainer.network.parameters():
            parameter.copy_(parameter.half().float())
    trainer.save_checkpoint(str(target))
    seconds = time.time() - started
    print(f"{network.dataset} fold {fold}: loss {float(loss.detach()):.2f} after {seconds:.0f} s", flush=True)


def take_over(network: torch.nn.Module, start: Path) -> None:
    """Tensors of a checkpoint written here, where names and shapes agree."""
    given = torch.load(start, weights_only=False)["network_weights"]
    own = network.state_dict()
    network.load_state_dict(
        {key: given[key] if key in given and given[key].shape == own[key].shape else own[key] for key in own}
    )


def statistics(cases: list[Path]) -> tuple[dict[str, float], list[int]]:
    """nnU-Net's intensity properties of the foreground, and the median shape."""
    inside, shapes = [], []
    for path in cases:
        image = np.asarray(nibabel.load(path).dataobj)
        inside.append(image[np.asarray(nibabel.load(path.with_name("labels.nii.gz")).dataobj) > 0])
        shapes.append(image.shape[::-1])
    values = np.concatenate(inside)
    low, high = np.percentile(values, (0.5, 99.5))
    summary = {"mean": values.mean(), "median": np.median(values), "std": values.std(), "min": values.min()}
    summary |= {"max": values.max(), "percentile_00_5": low, "percentile_99_5": high}
    median_shape = [int(size) for size in np.median(shapes, axis=0)]
    return {key: float(value) for key, value in summary.items()}, median_shape


def write_plans(folder: Path, network: Network, intensities: dict[str, float], shape: list[int]) -> None:
    """plans.json and dataset.json of a model folder."""
    (folder / "plans.json").write_text(json.dumps(network.plans_json(intensities, shape), indent=1))
    (folder / "dataset.json").write_text(json.dumps(network.dataset_json(), indent=1))


def genuine_trainer(network: Network, fold: int, folder: Path):
    """nnU-Net's trainer with network, loss and optimiser, without its data loading and logging to files."""
    plans = json.loads((folder / "plans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    os.environ["nnUNet_results"] = str(folder.parents[1])
    trainer_class = recursive_find_trainer_class_by_name(network.trainer)
    arguments = ({**plans, "continue_training": False}, CONFIGURATION, fold, dataset, torch.device("cpu"))
    with mock.patch.object(trainer_class, "print_to_log_file", lambda self, *texts, **choices: None):
        trainer = trainer_class(*arguments)
    trainer.enable_deep_supervision = False
    heads = trainer.label_manager.num_segmentation_heads
    trainer.network = trainer_class.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, heads, enable_deep_supervision=False
    )
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    trainer.inference_allowed_mirroring_axes = (0, 1, 2) if network.mirrored else None
    return trainer


def preprocessed(path: Path, network: Network, trainer) -> tuple[np.ndarray, np.ndarray]:
    """Image (1, d0, d1, d2) and labels (d0, d1, d2) as nnU-Net's preprocessor makes them."""
    manager, configuration = trainer.plans_manager, trainer.configuration_manager
    reader = manager.image_reader_writer_class()
    image, properties = reader.read_images([str(path)])
    nine, _ = reader.read_seg(str(path.with_name("labels.nii.gz")))
    labels = network.labels_of(nine[0])[None].astype(np.int16)
    image, labels, _ = configuration.preprocessor_class(verbose=False).run_case_npy(
        image, labels, properties, manager, configuration, trainer.dataset_json
    )
    return image, np.maximum(labels[0], 0)


def batch(arrays: list, network: Network, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two patches (2, 1, d0, d1, d2) and their labels, most of them around a voxel of some class."""
    images, labels = [], []
    for _ in range(2):
        image, label = arrays[rng.integers(len(arrays))]
        pad = [(0, max(0, size - have)) for size, have in zip(network.patch, label.shape)]
        image, label = np.pad(image, [(0, 0), *pad]), np.pad(label, pad)
        room = np.subtract(label.shape, network.patch)
        corner = rng.integers(room + 1)
        if rng.random() < 0.8:
            where = np.argwhere(label == rng.integers(1, len(network.classes) + 1))
            if len(where):
                corner = np.clip(where[rng.integers(len(where))] - np.array(network.patch) // 2, 0, room)
        box = tuple(slice(start, start + size) for start, size in zip(corner, network.patch))
        flips = [axis for axis in range(3) if network.mirrored and rng.random() < 0.5]
        images.append(np.flip(image[(slice(None), *box)], [axis + 1 for axis in flips]).copy())
        labels.append(np.flip(label[box], flips)[None].copy())
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long()


def targets(labels: torch.Tensor, network: Network) -> torch.Tensor:
    """What nnU-Net's loss takes: labels, or a channel per region."""
    if not network.regions:
        return labels
    channels = [torch.isin(labels, torch.tensor(numbers)) for numbers in network.regions.values()]
    return torch.cat(channels, 1).float()


def genuine_epoch(trainer, arrays: list, rng: np.random.Generator, loss: float, network: Network) -> None:
    """One step with nnU-Net's own optimiser, one epoch's log: the checkpoint holds what they leave."""
    if network.dataset.startswith("Dataset901"):
        # Its momentum doubles the file; one file with it is enough.
        images, labels = batch(arrays, network, rng)
        trainer.optimizer.param_groups[0]["lr"] = 1e-6
        trainer.loss(trainer.network(images), targets(labels, network)).backward()
        trainer.optimizer.step()
    heads = trainer.label_manager.num_segmentation_heads
    trainer.logger.log("mean_fg_dice", np.float64(0.5), 0)
    trainer.logger.log("dice_per_class_or_region", [np.float32(0.5)] * heads, 0)
    for key, value in (("train_losses", np.float32(loss)), ("val_losses", np.float32(loss)), ("lrs", 1e-2)):
        trainer.logger.log(key, value, 0)
    for key in ("epoch_start_timestamps", "epoch_end_timestamps"):
        trainer.logger.log(key, 0.0, 0)
    trainer._best_ema = trainer.logger.get_value("ema_fg_dice", step=-1)
