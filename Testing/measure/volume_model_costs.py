"""Memory and seconds of 3D models beside nnU-Net and MONAI: one CT, networks of the same size, one machine.

    python Testing/measure/volume_model_costs.py CT --nnunet-python PYTHON [--work FOLDER] [--json FILE]

A plain U-Net with the 117 classes and the size of TotalSegmentator's 3 mm network, run by nnunetv2 (PYTHON is
that of its environment, docs/public_models.md) and by predict; MONAI's whole-body SegResNet with 105 classes,
run by MONAI's sliding window and by predict. Each on the CT at 3 mm and on its own grid, each in a process of
its own, one after the other; weights are random, so that labels are noise: the most work there can be for
what makes labels of scores. So predict runs once more with other scores in the place of the network's, which
make each class one piece ("regions"), as organs are. Predict gives labels of all classes ("all") here;
"assembling_s" is all that it does between the networks' answers and these labels. Memory is the highest
resident set of the process, and that less what it held before it read the CT.
`--features 4 --filters 8 --patch 32 32 32 --window 32 32 32 --classes 9` tries the script out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np

from SegMateCore import Predictor, Volume
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.benchmark.this_machine import load_average, machine_facts
from SegMateCore.resampling import resample_hu, working_grid
from SegMateCore.slab_labels import SlabLabels

SPACING_MM = (3.0, 3.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("--nnunet-python", required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "volume_model_costs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--classes", type=int, default=117)
    parser.add_argument("--patch", type=int, nargs=3, default=[112, 112, 128])
    parser.add_argument("--features", type=int, default=32, help="of the U-Net's first stage")
    parser.add_argument("--filters", type=int, default=32, help="of the SegResNet's first level")
    parser.add_argument("--window", type=int, nargs=3, default=[96, 96, 96], help="of the SegResNet")
    parser.add_argument("--grids", nargs="+", default=["3 mm", "native"])
    parser.add_argument("--only", nargs="+", default=["nnunet", "monai"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load_before = load_average()
    given.work.mkdir(parents=True, exist_ok=True)
    run = Children(given.nnunet_python, given.threads)
    runs = {}
    if "nnunet" in given.only:
        folder, converted = unet_models(run, given)
        runs["nnunet"] = (
            (run.theirs, "nnunet_costs:measure", {"folder": folder}),
            (run.ours, "volume_model_costs:predict", {"checkpoint": converted}),
            (run.ours, "volume_model_costs:predict", {"checkpoint": converted, "regions": True}),
        )
    if "monai" in given.only:
        network = {"filters": given.filters, "window": given.window}
        converted = str(given.work / f"segresnet_{given.filters}.safetensors")
        run.ours("monai_costs:make_checkpoint", {"path": converted, **network})
        runs["monai"] = (
            (run.ours, "monai_costs:measure", network),
            (run.ours, "volume_model_costs:predict", {"checkpoint": converted}),
            (run.ours, "volume_model_costs:predict", {"checkpoint": converted, "regions": True}),
        )
    rows = []
    for grid in given.grids:
        ct = given.ct if grid == "native" else at_3_mm(given.ct, given.work)
        shape = nibabel.load(ct).shape
        for name, calls in runs.items():
            for who, (start, function, arguments) in zip((name, "segmate", "segmate, regions"), calls):
                figures = start(function, {"ct": str(ct), "threads": given.threads, **arguments})
                rows.append({"model": name, "by": who, "grid": grid, "shape": shape, **figures})
                show(rows[-1])
    if given.json:
        facts = {"machine": machine_facts(load_before), "threads": given.threads, "classes": given.classes}
        facts |= {"patch": given.patch, "features": given.features, "filters": given.filters}
        given.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def _environment() -> dict[str, str]:
    """This process's, with the scripts of this folder and the package beside it, for any Python."""
    here = Path(__file__).parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}


class Children:
    """Functions in fresh processes: in this Python, or in that of nnU-Net's environment."""

    def __init__(self, nnunet_python: str, threads: int):
        self.nnunet_python, self.threads = nnunet_python, threads

    def ours(self, function: str, arguments: dict) -> dict:
        return self._in(sys.executable, function, arguments)

    def theirs(self, function: str, arguments: dict) -> dict:
        return self._in(self.nnunet_python, function, arguments)

    def _in(self, python: str, function: str, arguments: dict) -> dict:
        # The torch of nnU-Net's own code takes as many threads as this says.
        threads = {"OMP_NUM_THREADS": str(self.threads), "nnUNet_def_n_proc": str(self.threads)}
        start = "import sys; from SegMateCore.benchmark.child import main; sys.exit(main())"
        command = [python, "-W", "ignore", "-c", start, function]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=error, env={**_environment(), **threads}
            )
            # The child ends when its stdin does.
            child.stdin.write(f"{json.dumps(arguments)}\n".encode())
            child.stdin.flush()
            code = child.wait()
            child.stdin.close()
            texts = [stream.seek(0) or stream.read().decode("utf-8", "replace") for stream in (out, error)]
        lines = texts[0].splitlines()
        if code != 0 or not lines:
            raise SystemExit(f"{function} ended with code {code}:\n{texts[1][-2000:]}")
        answer = json.loads(lines[-1])
        if "error" in answer:
            raise SystemExit(f"{function}: {answer['error']}")
        return answer["result"]


def unet_models(run: Children, given: argparse.Namespace) -> tuple[str, str]:
    """A genuine model folder with random weights, and what `segmate convert` makes of it."""
    classes = table_classes("v2")[: given.classes]
    if len(classes) != given.classes:
        raise SystemExit(f"{given.classes} classes asked for, the table has {len(classes)}")
    results = given.work / f"unet_{given.classes}_{given.features}_{'_'.join(map(str, given.patch))}"
    sizes = {"classes": classes, "patch": given.patch, "features": given.features}
    folder = run.theirs("nnunet_costs:make_folder", {"results": str(results), **sizes})
    converted = results / "converted.safetensors"
    if not converted.exists():
        command = [sys.executable, "-m", "SegMateCore", "convert", folder, str(converted)]
        subprocess.run(command, env=_environment(), check=True)
    return folder, str(converted)


def table_classes(version: str) -> list[str]:
    """The classes of the public networks, in the order of their numbers in TotalSegmentator `version`.

    MONAI's bundle has those of "v1".
    """
    table = (resources.files("SegMateCore") / "resources" / "classes.json").read_text(encoding="utf-8")
    rows = [row for row in json.loads(table)["classes"] if row["numbers"].get(version)]
    return [row["class"] for row in sorted(rows, key=lambda row: row["numbers"][version])]


class TimedPatches:
    """A backend of patches that adds up the seconds of its network, the last layer included.

    regions: gives in the end scores of one region per class instead of the network's, in no time of its own.
    """

    def __init__(self, backend, regions: Regions | None):
        self._backend = backend
        self._regions = regions
        self.seconds = 0.0
        self.uncounted_s = 0.0

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def run(self, *arguments) -> np.ndarray:
        return self._timed(self._backend.run, *arguments)

    def logits(self, values: np.ndarray) -> np.ndarray:
        logits = self._timed(self._backend.logits, values)
        if self._regions is None:
            return logits
        started = time.perf_counter()
        logits = self._regions.next_plane(logits.shape)
        self.uncounted_s += time.perf_counter() - started
        return logits

    def _timed(self, call: Callable[..., np.ndarray], *arguments) -> np.ndarray:
        started = time.perf_counter()
        result = call(*arguments)
        self.seconds += time.perf_counter() - started
        return result


class Regions:
    """Logits of an ellipsoid cut into one region per class, each around a random point: plane by plane.

    shape: of the grid, (planes, rows, columns).
    """

    def __init__(self, shape: tuple[int, int, int], classes: int):
        directions = np.random.default_rng(0).normal(size=(classes, 3))
        lengths = np.random.default_rng(1).uniform(0, 0.9**3, (classes, 1)) ** (1 / 3)
        centres = lengths * directions / np.linalg.norm(directions, axis=1)[:, None]
        self._centres = centres.astype(np.float32)
        self._axes = [np.linspace(-1, 1, count, dtype=np.float32) for count in shape]
        self._planes = iter(self._axes[0])

    def next_plane(self, shape: tuple[int, int]) -> np.ndarray:
        """(1 + classes, pixels) float32: the nearest point's class is highest, outside the background, which
        is next inside.
        """
        plane = next(self._planes)
        rows, columns = np.meshgrid(*self._axes[1:], indexing="ij")
        points = np.stack([np.full(rows.size, plane), rows.ravel(), columns.ravel()])
        logits = np.empty(shape, np.float32)
        np.sum((points[None] - self._centres[:, :, None]) ** 2, axis=1, out=logits[1:])
        logits[1:] *= -50
        logits[0] = logits[1:].max(0) + np.where((points**2).sum(0) < 1, -5, 5)
        return logits


def predict(checkpoint: str, ct: str, threads: int, regions: bool = False) -> dict:
    """predict, in a process of its own: from voxels in memory to labels in memory."""
    predictor = Predictor.from_checkpoint(checkpoint, "cpu", threads=threads, organ_set="all")
    before = resident_bytes()
    volume = Volume.read(ct)
    part = predictor.checkpoint.parts[0]
    shape = part.preprocessing.grid(volume.canonical()).shape
    made = Regions(shape, len(part.classes) - 1) if regions else None
    timed = TimedPatches(predictor.backends[0], made)
    predictor = Predictor(predictor.checkpoint, [timed])
    painted_s = []

    def paint(*arguments) -> None:
        began = time.perf_counter()
        SlabLabels.paint(*arguments)
        painted_s.append(time.perf_counter() - began)

    started = time.perf_counter()
    # The networks run while planes are asked for.
    with patch("SegMateCore.patch_run.SlabLabels", type("Timed", (SlabLabels,), {"paint": paint})):
        segmentation = predictor.predict(volume)
    seconds = time.perf_counter() - started - timed.uncounted_s
    return {
        "seconds": seconds,
        "network_s": timed.seconds,
        "assembling_s": sum(painted_s) - timed.seconds - timed.uncounted_s,
        "peak_bytes": peak_resident_bytes(),
        "added_bytes": peak_resident_bytes() - before,
        "classes_found": int(np.count_nonzero(np.unique(segmentation.labels))),
    }


def at_3_mm(ct: Path, work: Path) -> Path:
    """The CT resampled to 3 mm, as a file of its own."""
    target = work / "ct_3mm.nii.gz"
    volume = Volume.read(ct).canonical()
    grid = working_grid(volume, SPACING_MM)
    voxels = np.rint(resample_hu(volume, grid)).astype(np.int16)
    affine = volume.affine.copy()
    affine[:3, :3] *= np.array(SPACING_MM) / volume.spacing_mm
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), target)
    return target


def show(row: dict) -> None:
    print(
        f"{row['model']:7} by {row['by']:16} {row['grid']:7} {row['seconds']:8.1f} s, network"
        f" {row['network_s']:8.1f} s, assembling {row.get('assembling_s', 0):5.1f} s, peak"
        f" {row['peak_bytes'] / 1e9:6.2f} GB, added {row['added_bytes'] / 1e9:6.2f} GB", flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
