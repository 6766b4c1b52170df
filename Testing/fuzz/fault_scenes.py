"""The commands that faults.py disturbs: how each is called, and what its output is apart from dates.

Inputs are made of blocks, bands and tiny networks in a folder of their own.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

SEGMATE = [sys.executable, "-m", "SegMateCore"]


@dataclass(frozen=True)
class Scene:
    """make: writes the inputs. command: words for (inputs, output). input: the file that changes meanwhile.

    left_out: suffixes of files that hold dates or times, of which only the existence is compared. interim:
    files that hold earlier states while the command runs.
    """

    name: str
    make: Callable[[Path], None]
    command: Callable[[Path, Path], list[str]]
    input: str | None = None
    left_out: tuple[str, ...] = (".json", ".jsonl", ".html", ".png", ".md", ".lock")
    interim: tuple[str, ...] = ()
    serve: Callable = nullcontext

    @contextmanager
    def prepared(self, place: Path) -> Iterator[None]:
        with self.serve(place):
            self.make(place)
            yield

    def words(self, place: Path, out: Path) -> list[str]:
        return [str(word) for word in self.command(place, out)]

    def contents(self, out: Path) -> dict[str, str]:
        """Visible file -> what is compared of it. Raises where one is damaged."""
        found = {}
        for path in sorted(out.rglob("*")):
            parts = path.relative_to(out).parts
            # Unfinished downloads; TensorBoard's files, which are called after the time.
            unfinished = path.name.endswith((".part", ".part.json")) or "tfevents" in path.name
            if path.is_file() and not unfinished and not any(part.startswith(".") for part in parts):
                found["/".join(parts)] = _content(path, self.left_out)
        return found


def _content(path: Path, left_out: tuple[str, ...]) -> str:
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.segmentation import Segmentation
    from SegMateCore.volume import Volume

    name = path.name
    if name.endswith((".nii.gz", ".nrrd")):
        try:
            return hashlib.sha256(Segmentation.read(path).labels.tobytes()).hexdigest()
        except Exception:
            return hashlib.sha256(Volume.read(path).voxels.tobytes()).hexdigest()
    if name.endswith((".safetensors", ".onnx")):
        return Checkpoint.read(path).weights_sha256
    if name.endswith(left_out):
        return "there"
    if name.endswith(".csv"):
        return hashlib.sha256(repr(_figures(path)).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _figures(path: Path) -> list[list[str]]:
    """The cells of a table but the provenance, which holds the date."""
    with open(path, newline="", encoding="utf-8") as stream:
        header, *lines = csv.reader(stream)
    kept = [column for column, name in enumerate(header) if name != "provenance"]
    return [[line[column] for column in kept] for line in [header, *lines]]


def _ct(place: Path) -> None:
    from bands_graph import write_bands
    from small_ct import write_ct

    write_ct(place / "ct.nii.gz", 1)
    write_bands(place / "bands.onnx")


def _folder(place: Path) -> None:
    from bands_graph import write_bands
    from small_ct import write_ct

    for seed in range(4):
        write_ct(place / "cts" / f"case_{seed}.nii.gz", seed)
    write_bands(place / "bands.onnx")


def _source(place: Path) -> None:
    from small_runs import write_cases

    write_cases(place / "source", range(4))


def _pairs(place: Path) -> None:
    from label_folders import write_pairs

    write_pairs(place, ["a", "b", "c"])


def _store(place: Path) -> None:
    from small_runs import make_store

    make_store(place, range(3))


def _weights(place: Path) -> None:
    from targets import _checkpoint_seeds

    _checkpoint_seeds(place)


def _train_words(place: Path, out: Path) -> list:
    settings = (
        "optimisation.batch=4", "optimisation.steps_per_epoch=3", "optimisation.epochs=2",
        "optimisation.precision=fp32", "optimisation.channels_last=false", "sampling.rows=64",
        "sampling.columns=64", "sampling.workers=1", "validation.previews=0", "pretrained=false",
        "preprocessing.spacing_mm=[3.0, 3.0, 3.0]", "model_options.encoder=test_resnet",
        "model=segmate_resnet10t",
    )  # fmt: skip
    resume = ["--resume"] if (out / "config.toml").exists() else []
    words = [*SEGMATE, "train", place / "store", "-o", out, "--device", "cpu", *resume]
    return [*words, *(word for text in settings for word in ("--set", text))]


_DOWNLOAD = (
    "import sys; from pathlib import Path; from SegMateCore.download import download, Expected\n"
    "from SegMateCore.errors import SegMateError\n"
    "try: download(sys.argv[1], Path(sys.argv[2]) / 'model.bin', Expected(bytes=int(sys.argv[3])))\n"
    "except SegMateError as error: sys.exit(2)"
)


@contextmanager
def _server(place: Path) -> Iterator[None]:
    """A slow server of one file, whose address lies in `place`."""
    from file_server import Behaviour, FileServer

    content = bytes(range(256)) * 20_000
    with FileServer(model=Behaviour(content)) as server:
        (place / "address.txt").write_text(f"{server.url('model')} {len(content)}")
        yield


def _download_words(place: Path, out: Path) -> list:
    url, size = (place / "address.txt").read_text().split()
    return [sys.executable, "-c", _DOWNLOAD, url, out, size]


SCENES = {
    scene.name: scene
    for scene in (
        Scene("predict", _ct, lambda place, out: [
            *SEGMATE, "predict", place / "ct.nii.gz", "-o", out / "labels.nii.gz", "--checkpoint",
            place / "bands.onnx", "--preview", out / "p.png", "--statistics", out / "s.csv", "--chunk", "1",
        ], "ct.nii.gz"),
        Scene("batch", _folder, lambda place, out: [
            *SEGMATE, "predict", place / "cts", "-o", out, "--checkpoint", place / "bands.onnx",
            "--statistics", out / "s.csv", "--chunk", "1",
        ], "cts/case_2.nii.gz", interim=("s.csv",)),
        Scene("prepare", _source, lambda place, out: [
            *SEGMATE, "prepare", "folder", place / "source", out, "--spacing", "3", "--workers", "0",
        ], "source/case_001/ct.nii.gz"),
        Scene("evaluate", _pairs, lambda place, out: [
            *SEGMATE, "evaluate", place / "truth", "--predictions", place / "found", "-o", out, "--jobs", "0",
        ], "found/b.nii.gz", (".json", ".html", ".png", ".csv")),
        Scene("convert", _weights, lambda place, out: [
            *SEGMATE, "convert", place / "a.safetensors", out / "half.safetensors", "--half",
        ], "a.safetensors"),
        Scene("train", _store, _train_words, None, (".json", ".jsonl", ".png", ".toml", ".resume"),
              ("last.safetensors", "best.safetensors")),
        Scene("download", lambda place: None, _download_words, serve=_server),
    )
}  # fmt: skip
