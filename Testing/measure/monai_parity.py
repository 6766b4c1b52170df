"""predict beside MONAI on the whole-body CT bundle's full configuration, on a phantom and on CTs.

    python Testing/measure/monai_parity.py [CT ...] [--json docs/figures/monai_parity.json]

Writes a bundle in the genuine form (105 channels, 18.8 million weights), converts it with the package and
runs both in float32 on this CPU. The weights are random, scaled so that every class wins somewhere: many
close decisions, which is the hardest case for equal labels. For each input: how far any logit on the
network's grid is from MONAI's; Dice of every class there, with MONAI's arg-max as it is; and on the CT's own
grid, with MONAI's logits interpolated linearly, which is this package's rule.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib import resources
from pathlib import Path

import monai
import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1] / "core"))
from monai_reference import dice_per_label, monai_input, monai_logits, open_stream
from small_bundle import inference_config, metadata, write_bundle

from SegMateCore import Predictor, Volume
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.phantom import make_phantom
from SegMateCore.models import create_model
from SegMateCore.monai_bundle import read_bundle

BLOCKS = {"blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1], "dropout_prob": 0.2}
HIGH_MM = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cts", type=Path, nargs="*", metavar="CT")
    parser.add_argument("--low-resolution", action="store_true", help="3 mm instead of 1.5")
    parser.add_argument(
        "--phantom", type=int, nargs=3, default=(112, 112, 112), metavar=("K", "J", "I"),
        help="size in voxels of 2 mm, 0 0 0: none (%(default)s)",
    )
    parser.add_argument("--filters", type=int, default=32, help="of the first level (published: 32)")
    parser.add_argument("--patch", type=int, default=96, help="voxels a side (published: 96)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    volumes = {str(path.name): Volume.read(path) for path in given.cts}
    if all(given.phantom):
        volumes["phantom"] = make_phantom(3, 2.0, tuple(given.phantom)).volume
    options = {**BLOCKS, "init_filters": given.filters, "out_channels": len(class_names())}
    spacing_mm = 3.0 if given.low_resolution else HIGH_MM
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, volume in volumes.items():
            checkpoint, weights = converted(Path(folder), options, given, volume, spacing_mm)
            row = compared(checkpoint, weights, options, volume, spacing_mm)
            rows.append({"input": name, **row})
            print(json.dumps(rows[-1], indent=1), flush=True)
    if given.json:
        figures = {"monai": monai.__version__, "torch": torch.__version__, "network": options, "rows": rows}
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


def class_names() -> list[str]:
    """The background and the 104 classes, in the bundle's order."""
    text = (resources.files("SegMateCore") / "resources" / "classes.json").read_text(encoding="utf-8")
    numbers = {row["class"]: row["numbers"].get("v1") for row in json.loads(text)["classes"]}
    return ["background", *sorted(filter(numbers.get, numbers), key=numbers.__getitem__)]


def converted(
    folder: Path, options: dict, given: argparse.Namespace, volume: Volume, spacing_mm: float
) -> tuple[Checkpoint, Path]:
    """The bundle as a .safetensors, read again, with all classes; and the file of its weights."""
    config = inference_config(given.patch, {**BLOCKS, "init_filters": given.filters}, len(class_names()))
    config["displayable_configs"]["highres"] = not given.low_resolution
    write_bundle(folder / "bundle", config, metadata(class_names()))
    weights = folder / "bundle" / "models" / ("model_lowres.pt" if given.low_resolution else "model.pt")
    torch.save(balanced_weights(options, given.patch, monai_input(volume, spacing_mm)), weights)
    read = read_bundle(folder / "bundle")
    Checkpoint.write(folder / "converted.safetensors", read.document, [read.weights(0)])
    return Checkpoint.read(folder / "converted.safetensors").with_organ_set("all"), weights


def balanced_weights(options: dict, patch: int, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Random ones whose logits have mean 0 and deviation 1 in every class, in the middle of an image."""
    torch.manual_seed(0)
    model = create_model("segresnet", **options).eval()
    starts = [max(0, (count - patch) // 2) for count in image.shape[1:]]
    middle = [slice(start, start + patch) for start in starts]
    piece = torch.as_tensor(np.asarray(image))[(slice(None), *middle)][None]
    piece = torch.nn.functional.pad(
        piece, [side for count in reversed(piece.shape[2:]) for side in (0, patch - count)], mode="replicate"
    )
    last = model.conv_final[2].conv
    with torch.no_grad():
        logits = model(piece)[0].flatten(1)
        mean, deviation = logits.mean(1), logits.std(1)
        last.weight /= deviation[:, None, None, None, None]
        last.bias.copy_((last.bias - mean) / deviation)
    return model.state_dict()


def compared(
    checkpoint: Checkpoint, weights: Path, options: dict, volume: Volume, spacing_mm: float
) -> dict:
    """One row of the figures."""
    patch = checkpoint.parts[0].patches.size[0]
    expected = monai_logits(weights, options, volume, spacing_mm, patch)
    apart, classes = 0.0, np.zeros(expected.shape[1:], np.uint8)
    stream = open_stream(checkpoint, volume)
    try:
        for number, plane in stream.planes(set(range(expected.shape[1]))):
            apart = max(apart, float(np.abs(plane - expected[:, number].numpy()).max()))
            classes[number] = plane.argmax(0)
        patches = len(stream.positions)
    finally:
        stream.close()
    predictor = Predictor.from_checkpoint(checkpoint, "cpu", precision="fp32")
    ours = predictor.predict(volume).labels
    return {
        "shape_kji": list(volume.shape),
        "spacing_mm": [round(float(mm), 6) for mm in volume.spacing_mm],
        "network_mm": spacing_mm,
        "network_shape_ijk": list(expected.shape[1:]),
        "patches": patches,
        "largest_difference_of_logits": apart,
        "deviation_of_logits": float(expected.std()),
        "network_grid": summary(dice_per_label(classes, expected.argmax(0).numpy().astype(np.uint8))),
        "own_grid": summary(dice_per_label(ours, on_native_grid(expected, volume))),
    }


def on_native_grid(logits, volume: Volume) -> np.ndarray:
    """Classes (K, J, I) on the CT's grid, from MONAI's logits (C, i, j, k)."""
    to_working = torch.from_numpy(np.linalg.inv(np.asarray(logits.affine)) @ np.asarray(volume.affine))
    scores = torch.as_tensor(np.asarray(logits))
    last = torch.tensor(scores.shape[1:], dtype=torch.float64) - 1
    slices, rows, columns = volume.shape
    winners = np.empty(volume.shape, np.uint8)
    j, i = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    for k in range(slices):
        index = torch.stack([i, j, torch.full_like(i, k), torch.ones_like(i)], -1).double()
        there = torch.minimum((index @ to_working.T)[..., :3].clamp(min=0), last)
        # A few planes of the logits are enough for one slice, so that float64 costs no memory.
        low, high = int(there[..., 2].min()), int(there[..., 2].max().ceil()) + 1
        sizes = torch.tensor([*scores.shape[1:3], high - low], dtype=torch.float64)
        inside = there - torch.tensor([0, 0, low])
        # grid_sample counts the last axis first, from -1 to 1; an axis of one voxel has no width.
        grid = (2 * inside / (sizes - 1).clamp(min=1) - 1).flip(-1)
        found = torch.nn.functional.grid_sample(
            scores[None, ..., low:high].double(), grid[None, None], padding_mode="border", align_corners=True
        )
        winners[k] = found[0, :, 0].argmax(0).numpy()
    return winners


def summary(dice: dict[int, float]) -> dict:
    values = list(dice.values())
    return {"classes": len(values), "worst_dice": min(values), "mean_dice": float(np.mean(values))}


if __name__ == "__main__":
    main()
