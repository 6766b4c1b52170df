"""The speed figures of docs/benchmarks: to be run alone on a quiet machine, about 25 minutes on two cores.

    python Testing/measure/speed_figures.py [PART ...] --fastvit F --mambaout M --efficientnet E

PART: eager (against the original's loop at 256 and 512), monai (against MONAI on lidc_0001, with stages,
whole process and peak memory), ram (memory against slices), exports (fp32, fp16, int8 .onnx), networks (every
registered network); default: all. F, M, E are checkpoints (.safetensors); a network without one gets random
weights, and its figures say so. Each figure is written to docs/benchmarks/PART.json as soon as it is there,
and is not measured again for the same checkpoints unless --again is given. docs/benchmarks/figures.md is made
of all of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from speed_tables import markdown

from SegMateCore.atomic import atomic_write
from SegMateCore.backends import PRECISIONS
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.this_machine import machine_facts
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.phantom import make_phantom
from SegMateCore.demo import dice
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.volume import Volume

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
MODELS = {"fastvit": "segmate_fastvit", "mambaout": "segmate_mambaout", "efficientnet": "segmate_v2_m"}
SPACING_MM = (1.5, 1.5, 1.5)
SIZES = (256, 512)
# Of lidc_0001: enough that one slice more or less does not count, few enough that the loops end.
EAGER_SLICES = range(34, 98)
RAM_SLICES = (100, 300, 1000)
RAM_SPACING_MM = (0.8, 0.8, 1.5)
UNCLEANED = PredictOptions(clean_up=False)


class Figures:
    """The figures of one part, on disk after each. checkpoints: encoder -> what its figures are made with."""

    def __init__(self, part: str, checkpoints: dict[str, str], again: bool):
        self.path = FOLDER / f"{part}.json"
        self.content = {"machine": machine_facts(), "checkpoints": checkpoints, "figures": {}}
        if self.path.is_file() and not again:
            before = json.loads(self.path.read_text(encoding="utf-8"))
            if before["checkpoints"] == checkpoints:
                self.content["figures"] = before["figures"]

    def measure(self, key: str, function: Callable[[], dict]) -> None:
        """What is there already stays."""
        if key in self.content["figures"]:
            print(f"{self.path.stem}: {key} is there already", flush=True)
            return
        started = time.monotonic()
        self.content["figures"][key] = function()
        with atomic_write(self.path) as stream:
            stream.write((json.dumps(self.content, indent=1) + "\n").encode())
        print(f"{self.path.stem}: {key} took {time.monotonic() - started:.0f} s", flush=True)


class Material:
    """Checkpoints and CTs of a run, made when they are asked for."""

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.arguments = arguments
        self.folder = folder
        self.lidc = arguments.shared / "data" / "lidc_0001" / "ct.nii.gz"

    def checkpoint(self, encoder: str) -> str:
        """A trained one where it was given, else random weights."""
        given = getattr(self.arguments, encoder)
        if given is not None:
            return str(given)
        path = self.folder / f"{encoder}.safetensors"
        if not path.is_file():
            words = {"name": MODELS[encoder], "path": str(path), "spacing_mm": SPACING_MM}
            in_child("SegMateCore.benchmark.random_weights:write_random_checkpoint", words)
        return str(path)

    def weights(self) -> dict[str, str]:
        """Hash of the weights of each encoder, or that they are random."""
        given = {encoder: getattr(self.arguments, encoder) for encoder in MODELS}
        return {
            encoder: "random" if path is None else Checkpoint.read(path).weights_sha256
            for encoder, path in given.items()
        }

    def middle(self) -> Path:
        """The slices of lidc_0001 for the plain loops, with its own axes."""
        path = self.folder / "middle.nii"
        if not path.is_file():
            canonical = Volume.read(self.lidc).canonical()
            affine = canonical.affine.copy()
            affine[:3, 3] += EAGER_SLICES.start * affine[:3, 2]
            Volume(canonical.voxels[EAGER_SLICES.start : EAGER_SLICES.stop], affine).write(path)
        return path

    def tall(self, slices: int) -> Path:
        """So many slices of 512 x 512: those of lidc_0001 up and down again."""
        path = self.folder / f"tall{slices}.nii"
        if not path.is_file():
            voxels = Volume.read(self.lidc).canonical().voxels
            there_and_back = np.concatenate([np.arange(len(voxels)), np.arange(len(voxels))[::-1]])
            numbers = np.resize(there_and_back, slices)
            Volume(voxels[numbers], np.diag([*RAM_SPACING_MM, 1.0])).write(path)
        return path


def eager(material: Material, figures: Figures) -> None:
    """Ratio and Dice against the original's loop, for each encoder, size and precision."""
    from SegMateCore.benchmark.against_eager import compare_with_eager, lowest_dice
    from SegMateCore.benchmark.predict_stages import PredictSetting

    def compare(encoder: str, size: int, precision: str) -> dict:
        setting = PredictSetting(material.checkpoint(encoder), "cpu", precision=precision)
        found = compare_with_eager(setting, material.middle(), size, repeats=2)
        lowest = lowest_dice(list(found.dice.values()))
        return {**asdict(found), "ratio": found.ratio, "lowest_dice": lowest}

    fast = [("fastvit", "fast")] if "fast" in PRECISIONS else []
    for encoder, precision in [*((encoder, "auto") for encoder in MODELS), *fast]:
        for size in SIZES:
            figures.measure(
                f"{encoder} {precision} {size}", lambda e=encoder, s=size, p=precision: compare(e, s, p)
            )


def monai(material: Material, figures: Figures) -> None:
    """Against MONAI, and the stages of predict, both FastViT-T12 on the whole of lidc_0001."""
    from SegMateCore.benchmark.against_monai import compare_with_monai
    from SegMateCore.benchmark.predict_stages import PredictSetting, measure_predict

    setting = PredictSetting(material.checkpoint("fastvit"), "cpu")

    def against() -> dict:
        found = compare_with_monai(setting, material.lidc, repeats=2)
        return {**asdict(found), "ratio": found.ratio, "monai_weights": "random"}

    figures.measure("stages", lambda: asdict(measure_predict(setting, material.lidc, repeats=3)))
    figures.measure("against monai", against)


def ram(material: Material, figures: Figures) -> None:
    """Peak resident set above the loaded runtime against the number of slices."""
    def grow(slices: int) -> dict:
        checkpoint = material.checkpoint("fastvit")
        words = {"ct": str(material.tall(slices)), "checkpoint": checkpoint, "device": "cpu"}
        peak = in_child("SegMateCore.benchmark.predict_stages:peak_growth", words)
        return {"slices": slices, "peak_bytes": peak, "ct_bytes": slices * 512 * 512 * 2}

    for slices in RAM_SLICES:
        figures.measure(str(slices), lambda count=slices: grow(count))


def exports(material: Material, figures: Figures) -> None:
    """Each precision of each network and of the demonstration: file, logits, Dice, milliseconds."""
    from SegMateCore.errors import SegMateError
    from SegMateCore.export import PRECISIONS as EXPORTED
    from SegMateCore.export import export_onnx

    def export(name: str, precision: str) -> dict:
        source = Checkpoint.read(_source(material, name))
        path = material.folder / f"{name}_{precision}.onnx"
        volumes = [Volume.read(material.middle()), make_phantom(2003, (2.0, 2.0, 4.0)).volume]
        try:
            found = asdict(export_onnx(source, path, precision=precision, volumes=volumes))
        except SegMateError as error:
            return {"refused": str(error)}
        if precision == "fp32":
            found["dice"] = _dice_of(str(source.path), str(path), volumes[0])
        path.unlink()
        return found

    for name in ("demo", *MODELS):
        for precision in EXPORTED:
            figures.measure(f"{name} {precision}", lambda n=name, p=precision: export(n, p))


def _source(material: Material, name: str) -> Path:
    from SegMateCore.bundled import resolve_checkpoint

    return resolve_checkpoint("demo", "torch") if name == "demo" else Path(material.checkpoint(name))


def _dice_of(one: str, other: str, volume: Volume) -> dict[str, float]:
    """Of the labels of two checkpoints, per organ that one of them finds."""
    predictors = (Predictor.from_checkpoint(path, device="cpu") for path in (one, other))
    first, second = (predictor.predict(volume, options=UNCLEANED) for predictor in predictors)
    found = {
        organ.name: dice(first.labels == organ.label, second.labels == organ.label) for organ in first.organs
    }
    return {name: value for name, value in found.items() if value is not None}


def networks(material: Material, figures: Figures) -> None:
    """Every registered network with random weights, one slice of 256 x 256 a call, in float32 of PyTorch."""
    from SegMateCore.benchmark.networks import NetworkOptions, measure_networks
    from SegMateCore.models import list_models

    options = NetworkOptions(device="cpu", precision="fp32", repeats=10, warm_up=2)
    for name in list_models():
        figures.measure(name, lambda n=name: asdict(next(iter(measure_networks([n], options)))))


PARTS = {"eager": eager, "monai": monai, "ram": ram, "exports": exports, "networks": networks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    for encoder in MODELS:
        parser.add_argument(f"--{encoder}", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    FOLDER.mkdir(exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segmate-figures-") as folder:
        material = Material(arguments, Path(folder))
        for part in arguments.parts or PARTS:
            PARTS[part](material, Figures(part, material.weights(), arguments.again))
            (FOLDER / "figures.md").write_text("\n".join(markdown(FOLDER)), encoding="utf-8")
    print(f"all in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
