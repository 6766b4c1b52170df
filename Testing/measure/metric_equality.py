"""The metrics beside independent implementations: google-deepmind/surface-distance, MONAI, medpy.

    pip install surface-distance monai medpy
    python Testing/measure/metric_equality.py [--json FILE] [--labels REFERENCE FOUND]

On random blobs of anisotropic spacing, and with --labels on two label maps of one grid: the largest absolute
difference of every figure whose definition is the same, and, where the definitions differ (distances between
borders of voxels instead of surfaces), how much that makes.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import medpy.metric.binary as medpy_binary
import numpy as np
import surface_distance
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance
from scipy import ndimage

from SegMateCore.evaluation.metrics import TOLERANCES_MM, score_organ
from SegMateCore.segmentation import Segmentation

BLOBS = 40
SHAPE = (24, 40, 36)


def blob_pairs(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Two overlapping random blobs (K, J, I) and a spacing (k, j, i) in mm."""
    rng = np.random.default_rng(7)
    for number in range(count):
        noise = [ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5 + number % 3) for _ in range(2)]
        first = noise[0] > 0.8 * noise[0].std()
        second = (noise[0] + 0.4 * noise[1]) > 0.8 * noise[0].std()
        yield first, second, tuple(rng.uniform(0.6, 5.0, 3))


def organ_pairs(reference: Path, found: Path) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Every organ of two label maps of one grid, cropped to both with a margin."""
    first, second = Segmentation.read(reference), Segmentation.read(found)
    for organ in first.organs:
        pair = first.mask(organ.name), second.mask(organ.name)
        if pair[0].any() and pair[1].any():
            box = ndimage.find_objects((pair[0] | pair[1]).astype(np.uint8))[0]
            yield np.pad(pair[0][box], 1), np.pad(pair[1][box], 1), first.as_volume().spacing_mm[::-1]


def their_values(reference: np.ndarray, found: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Their figures: "name: metric", with "other definition: " in front where equality is not expected."""
    between = surface_distance.compute_surface_distances(reference, found, spacing_mm)
    values = {
        "surface-distance: hd95_mm": surface_distance.compute_robust_hausdorff(between, 95),
        "surface-distance: asd_mm": float(
            np.mean(surface_distance.compute_average_surface_distance(between))
        ),
        "medpy: dice": medpy_binary.dc(found, reference),
        "medpy: iou": medpy_binary.jc(found, reference),
        "medpy: precision": medpy_binary.precision(found, reference),
        "medpy: recall": medpy_binary.recall(found, reference),
        "other definition: medpy: hd95_mm": medpy_binary.hd95(found, reference, spacing_mm),
        "other definition: medpy: asd_mm": medpy_binary.assd(found, reference, spacing_mm),
    }
    y, x = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (reference, found))
    space = {"include_background": True, "spacing": spacing_mm}
    values["MONAI: dice"] = float(compute_dice(x, y))
    values["MONAI: iou"] = float(compute_iou(x, y))
    values["other definition: MONAI: hd95_mm"] = float(
        compute_hausdorff_distance(x, y, percentile=95, **space)
    )
    values["other definition: MONAI: asd_mm"] = float(
        compute_average_surface_distance(x, y, symmetric=True, **space)
    )
    for mm in TOLERANCES_MM:
        key = f"nsd_{mm}mm"
        values[f"surface-distance: {key}"] = surface_distance.compute_surface_dice_at_tolerance(between, mm)
        surface_dice = compute_surface_dice(x, y, class_thresholds=[mm], use_subvoxels=True, **space)
        values[f"MONAI, sub-voxels: {key}"] = float(surface_dice)
        borders = compute_surface_dice(x, y, class_thresholds=[mm], **space)
        values[f"other definition: MONAI, voxel borders: {key}"] = float(borders)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=Path, nargs=2, metavar=("REFERENCE", "FOUND"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sets = {"random blobs": blob_pairs(BLOBS)}
    if args.labels:
        sets["two label maps"] = organ_pairs(*args.labels)
    report = {"versions": {name: version(name) for name in ("surface-distance", "monai", "medpy", "numpy")}}
    for title, pairs in sets.items():
        apart: dict[str, list[float]] = {}
        for reference, found, spacing_mm in pairs:
            ours = score_organ(reference, found, np.diag(spacing_mm)).values
            for name, value in their_values(reference, found, spacing_mm).items():
                apart.setdefault(name, []).append(abs(value - ours[name.rpartition(": ")[2]]))
        report[title] = {
            name: {"pairs": len(each), "largest_difference": float(f"{max(each):.3g}"),
                   "mean_difference": float(f"{np.mean(each):.3g}")}
            for name, each in sorted(apart.items())
        }  # fmt: skip
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
