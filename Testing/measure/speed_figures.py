"""The speed figures of docs/benchmarks: to be run alone on a quiet machine, about 40 minutes on two cores.

    python Testing/measure/speed_figures.py [PART ...] --fastvit F --mambaout M --efficientnet E

PART: eager (against the original's loop at 256 and 512), monai (against MONAI on lidc_0001, with stages,
whole process and peak memory), ram (memory against slices), exports (fp32, fp16, int8 .onnx), networks (every
registered network); default: all. F, M, E are checkpoints (.safetensors); a network without one gets random
weights, and its figures say so. Each figure is written to docs/benchmarks/PART.json as soon as it is there,
with what it was made of, and is not measured again by the same code on the same machine with the same weights
unless --again is given. Random weights take the place of trained ones with --again only. figures.md is made
of all of them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
from figure_file import RANDOM, ROOT, Figures, code_facts, file_sha256
from speed_tables import markdown

from SegMateCore.backends import PRECISIONS
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.this_machine import load_average
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.export_labels import LabelAgreement
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.volume import Volume

MODELS = {"fastvit": "segmate_fastvit", "mambaout": "segmate_mambaout", "efficientnet": "segmate_v2_m"}
SPACING_MM = (1.5, 1.5, 1.5)
SIZES = (256, 512)
# Of lidc_0001: enough that one slice more or less does not count, few enough that the loops end.
EAGER_SLICES = range(34, 98)
RAM_SLICES = (100, 300, 1000)
RAM_SPACING_MM = (0.8, 0.8, 1.5)
REPEATS = 3
UNCLEANED = PredictOptions(clean_up=False)


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

    def weights(self, encoder: str) -> str:
        """The hash of an encoder's weights, or that they are random."""
        given = getattr(self.arguments, encoder)
        return RANDOM if given is None else Checkpoint.read(given).weights_sha256

    def slices(self, first: int, last: int) -> Path:
        """Slices first..last-1 of lidc_0001, with its own axes."""
        path = self.folder / f"slices{first}to{last}.nii"
        if not path.is_file():
            canonical = Volume.read(self.lidc).canonical()
            affine = canonical.affine.copy()
            affine[:3, 3] += first * affine[:3, 2]
            Volume(canonical.voxels[first:last], affine).write(path)
        return path

    def middle(self) -> Path:
        """Those for the plain loops, and to score exports on."""
        return self.slices(EAGER_SLICES.start, EAGER_SLICES.stop)

    @cached_property
    def calibration(self) -> list[Volume]:
        """For exports: below and above the middle; that itself, as export_onnx has it, is only checked."""
        below = Volume.read(self.slices(0, EAGER_SLICES.start))
        above = Volume.read(self.slices(EAGER_SLICES.stop, Volume.read(self.lidc).canonical().shape[0]))
        return [below, above, Volume.read(self.middle())]

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
        found = compare_with_eager(setting, material.middle(), size, REPEATS)
        lowest = lowest_dice(list(found.dice.values()))
        return {**asdict(found), "ratio": found.ratio, "lowest_dice": lowest}

    fast = [("fastvit", "fast")] if "fast" in PRECISIONS else []
    for encoder, precision in [*((encoder, "auto") for encoder in MODELS), *fast]:
        for size in SIZES:
            figures.measure(
                f"{encoder} {precision} {size}", material.weights(encoder),
                lambda e=encoder, s=size, p=precision: compare(e, s, p),
            )  # fmt: skip


def monai(material: Material, figures: Figures) -> None:
    """Against MONAI, and the stages of predict, both FastViT-T12 on the whole of lidc_0001."""
    from SegMateCore.benchmark.against_monai import compare_with_monai
    from SegMateCore.benchmark.predict_stages import PredictSetting, measure_predict

    def setting() -> PredictSetting:
        return PredictSetting(material.checkpoint("fastvit"), "cpu")

    def against() -> dict:
        found = compare_with_monai(setting(), material.lidc, REPEATS)
        return {**asdict(found), "ratio": found.ratio, "monai_weights": "random"}

    def stages() -> dict:
        return asdict(measure_predict(setting(), material.lidc, REPEATS))

    figures.measure("stages", material.weights("fastvit"), stages)
    figures.measure("against monai", material.weights("fastvit"), against)


def ram(material: Material, figures: Figures) -> None:
    """Peak resident set above the loaded runtime against the number of slices."""
    from SegMateCore.benchmark.predict_stages import PredictSetting

    def grow(slices: int) -> dict:
        setting = PredictSetting(material.checkpoint("fastvit"), "cpu")
        words = {"ct": str(material.tall(slices)), **asdict(setting)}
        peak = in_child("SegMateCore.benchmark.predict_stages:peak_growth", words)
        ct_bytes = slices * 512 * 512 * 2
        return {
            "slices": slices, "threads": setting.thread_count, "peak_bytes": peak, "ct_bytes": ct_bytes
        }

    for slices in RAM_SLICES:
        figures.measure(str(slices), material.weights("fastvit"), lambda count=slices: grow(count))


def exports(material: Material, figures: Figures) -> None:
    """Each precision of each network and of the demonstration: file, logits, Dice, milliseconds.

    The Dice is that against PyTorch in fp32 on slices that calibrated nothing, without clean-up.
    """
    from SegMateCore.errors import SegMateError
    from SegMateCore.export import PRECISIONS as EXPORTED
    from SegMateCore.export import export_onnx

    def export(name: str, precision: str) -> dict:
        source = Checkpoint.read(_source(material, name))
        path = material.folder / f"{name}_{precision}.onnx"
        try:
            found = asdict(export_onnx(source, path, precision=precision, volumes=material.calibration))
        except SegMateError as error:
            return {"precision": precision, "refused": str(error)}
        checked = found.pop("dice")
        held_out = _dice_of(source.path, path, Volume.read(material.middle()))
        found |= {"checked_dice": checked, "dice": held_out}
        path.unlink()
        return found

    for name in ("demo", *MODELS):
        for precision in EXPORTED:
            weights = _demo_weights() if name == "demo" else material.weights(name)
            figures.measure(f"{name} {precision}", weights, lambda n=name, p=precision: export(n, p))


def _source(material: Material, name: str) -> Path:
    return resolve_checkpoint("demo", "torch") if name == "demo" else Path(material.checkpoint(name))


def _demo_weights() -> str:
    return Checkpoint.read(resolve_checkpoint("demo", "torch")).weights_sha256


def _dice_of(one: Path, other: Path, volume: Volume) -> dict[str, float]:
    """Of the labels of two checkpoints, per organ that is large enough to be scored."""
    predictors = [Predictor.from_checkpoint(path, device="cpu") for path in (one, other)]
    first, second = (predictor.predict(volume, options=UNCLEANED) for predictor in predictors)
    agreement = LabelAgreement({organ.name: organ.label for organ in first.organs})
    agreement.add(first.labels, second.labels, volume.voxel_ml)
    return agreement.dice()


def networks(material: Material, figures: Figures) -> None:
    """Every registered network with random weights, one slice of 256 x 256 a call, in float32 of PyTorch."""
    from SegMateCore.benchmark.networks import NetworkOptions, measure_networks
    from SegMateCore.models import list_models

    options = NetworkOptions(device="cpu", precision="fp32", repeats=10, warm_up=2)
    for name in list_models():
        figures.measure(name, RANDOM, lambda n=name: asdict(next(iter(measure_networks([n], options)))))


PARTS = {"eager": eager, "monai": monai, "ram": ram, "exports": exports, "networks": networks}


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 where a figure could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    for encoder in MODELS:
        parser.add_argument(f"--{encoder}", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args(words)
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupted)  # so that children and the temporary folder go
    started, load_before, failed = time.monotonic(), load_average(), []
    with tempfile.TemporaryDirectory(prefix="segmate-figures-") as folder:
        material = Material(arguments, Path(folder))
        made = {**code_facts(), "ct_sha256": file_sha256(material.lidc)}
        for part in arguments.parts or PARTS:
            figures = Figures(arguments.output / f"{part}.json", made, load_before, arguments.again)
            PARTS[part](material, figures)
            failed += [f"{part}: {key}" for key in figures.failed]
            text = "\n".join(markdown(arguments.output))
            (arguments.output / "figures.md").write_text(text, encoding="utf-8")
    print(f"all in {time.monotonic() - started:.0f} s; not measured: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _interrupted(*_) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
