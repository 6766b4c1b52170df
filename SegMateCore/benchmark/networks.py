"""What networks cost: parameters, multiply-accumulates, file, latency, memory; each in a fresh process.

Takes names of registered networks or checkpoint files, gives NetworkFigures one after the other. Names get
random weights, and their figures say so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from SegMateCore.backends import Backend, open_backend
from SegMateCore.backends.choosing import chosen_file
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.benchmark.random_weights import RANDOM
from SegMateCore.benchmark.random_windows import check_size, random_windows
from SegMateCore.benchmark.this_machine import gpu_name
from SegMateCore.benchmark.threads import thread_count
from SegMateCore.benchmark.timing import interleaved
from SegMateCore.cancelling import IsCancelled
from SegMateCore.checkpoint import SUFFIXES, Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.models import list_models

_HERE = __name__
# What "peak memory" means.
ALLOCATOR, RESIDENT = "allocator", "resident growth"


@dataclass(frozen=True)
class NetworkOptions:
    """How networks are run.

    size: rows and columns of a slice. chunk: slices per call. slices: of the volume whose
    multiply-accumulates are told. backend, device, precision: as for Predictor.from_checkpoint. threads: of
    the CPU, None for every core, which is then asked for by number.
    """

    size: int = 256
    chunk: int = 1
    slices: int = 300
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    repeats: int = 20
    warm_up: int = 3

    def __post_init__(self) -> None:
        for name in ("size", "chunk", "slices", "repeats"):
            if getattr(self, name) < 1:
                raise SegMateError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.threads is not None and self.threads < 1:
            raise SegMateError(f"threads is {self.threads}, expected at least 1")
        if self.warm_up < 0:
            raise SegMateError(f"warm-up is {self.warm_up}, expected 0 or more")
        check_size(self.size)


@dataclass(frozen=True)
class NetworkFigures:
    """One network. given: the word that it was asked for by. weights: "random weights", or the checkpoint's
    name. threads: of the CPU. gpu: its name, None without one or where torch does not run. parameters and
    multiply_accumulates: None where torch is not installed. mean_ms, p50_ms, p95_ms: of one call with `chunk`
    slices. matmul_rate: multiply-accumulates per second of large matrices on the same device in the same
    precision (matmul_rate.py), None for other engines than PyTorch. peak_bytes: on CUDA the most that
    PyTorch's allocator held while running (memory: "allocator"), elsewhere the growth of the resident set
    from the loaded runtime to its highest ("resident growth").
    """

    given: str
    network: str
    weights: str
    backend: str
    device: str
    gpu: str | None
    precision: str
    threads: int
    rows: int
    columns: int
    chunk: int
    repeats: int
    warm_up: int
    parameters: int | None
    multiply_accumulates: int | None
    volume_slices: int
    volume_multiply_accumulates: int | None
    file_bytes: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    slices_per_s: float
    matmul_rate: float | None
    peak_bytes: int
    memory: str

    @property
    def matmul_share(self) -> float | None:
        """Multiply-accumulates per second of the network, as a share of matmul_rate."""
        if self.matmul_rate is None or self.multiply_accumulates is None:
            return None
        return self.multiply_accumulates * self.slices_per_s / self.matmul_rate


def measure_networks(
    words: Sequence[str], options: NetworkOptions, cancelled: IsCancelled = None
) -> Iterator[NetworkFigures]:
    """The networks one by one: names of `list_models()`, or checkpoints; none: every registered one.

    Raises SegMateError for a word that is neither, before anything is measured, and for an engine or device
    that is not to be had. Raises Cancelled.
    """
    targets = [(word, _target(word, options)) for word in (words or list_models())]
    return _measured(targets, options, cancelled)


def network_count(words: Sequence[str], options: NetworkOptions = NetworkOptions()) -> int:
    """How many figures `measure_networks` will give."""
    return sum(_parts(_target(word, options)) for word in words) if words else len(list_models())


def _target(word: str, options: NetworkOptions) -> str | Path:
    """A registered name, or the path of a checkpoint that can be read: the one that predict would open."""
    if word in list_models():
        return word
    try:
        path, _ = chosen_file(word, options.backend, options.device, options.precision)
        return Checkpoint.read(path).path
    except SegMateError as error:
        if Path(word).suffix.lower() in SUFFIXES or Path(word).exists():
            raise
        from SegMateCore.models import model_entry

        try:
            model_entry(word)
        except SegMateError as unknown:
            raise SegMateError(f"{unknown} Nor is it a checkpoint: {error}") from None
        raise


def _parts(target: str | Path) -> int:
    return 1 if isinstance(target, str) else len(Checkpoint.read(target).parts)


def _measured(
    targets: Sequence[tuple[str, str | Path]], options: NetworkOptions, cancelled: IsCancelled
) -> Iterator[NetworkFigures]:
    for word, target in targets:
        with tempfile.TemporaryDirectory(prefix="segmate-benchmark-") as folder:
            path = target
            if isinstance(target, str):
                suffix = ".onnx" if options.backend == "onnxruntime" else ".safetensors"
                words = {"name": target, "path": str(Path(folder) / f"random{suffix}")}
                path = in_child(
                    "SegMateCore.benchmark.random_weights:write_random_checkpoint", words, cancelled
                )
            for part in range(_parts(target)):
                given = {"word": word, "path": str(path), "part": part, **asdict(options)}
                yield NetworkFigures(**in_child(f"{_HERE}:measure_part", given, cancelled))


def measure_part(word: str, path: str, part: int, **options: object) -> dict:
    """One part of a checkpoint, in this process; a dictionary of NetworkFigures' fields."""
    wanted = NetworkOptions(**options)
    checkpoint = Checkpoint.read(path)
    load_runtime(checkpoint)
    before = resident_bytes()
    threads = thread_count(wanted.threads)
    backend = open_backend(checkpoint, part, wanted.backend, wanted.device, wanted.precision, threads)
    windows, z = random_windows(checkpoint.parts[part].preprocessing, wanted.chunk, wanted.size)
    allocator = backend.name == "torch" and backend.device.startswith("cuda")
    if allocator:
        import torch

        torch.cuda.reset_peak_memory_stats(backend.device)
    (timing,) = interleaved([lambda: backend.run(windows, z)], wanted.repeats, wanted.warm_up)
    peak = torch.cuda.max_memory_allocated(backend.device) if allocator else peak_resident_bytes() - before
    entry = checkpoint.parts[part]
    parameters, macs = _cost(entry.model_name, entry.model_options, wanted.size)
    document = checkpoint.document
    name = entry.model_name if len(checkpoint.parts) == 1 else f"{entry.model_name} (part {part})"
    return asdict(NetworkFigures(
        word, name, RANDOM if document["name"].endswith(RANDOM) else document["name"],
        f"{backend.name} {backend.version}", backend.device,
        gpu_name() if backend.device.startswith("cuda") else None, backend.precision, threads,
        wanted.size, wanted.size, wanted.chunk, wanted.repeats, wanted.warm_up, parameters, macs,
        wanted.slices, None if macs is None else macs * wanted.slices, Path(path).stat().st_size,
        1000 * timing.mean_s, 1000 * timing.p50_s, 1000 * timing.p95_s, wanted.chunk / timing.p50_s,
        _matmul_rate(backend), peak, ALLOCATOR if allocator else RESIDENT,
    ))  # fmt: skip


def _matmul_rate(backend: Backend) -> float | None:
    if backend.name != "torch":
        return None
    from SegMateCore.benchmark.matmul_rate import matmul_rate

    return matmul_rate(backend.device, backend.precision)


def load_runtime(checkpoint: Checkpoint) -> None:
    """Its own memory is not the network's. Where it is missing, open_backend says so."""
    try:
        if checkpoint.is_onnx:
            import onnxruntime  # noqa: F401
        else:
            import timm  # noqa: F401
            import torch  # noqa: F401
    except ImportError:
        pass


def _cost(name: str, options: dict, size: int) -> tuple[int | None, int | None]:
    try:
        from SegMateCore.benchmark.network_cost import network_cost
    except ImportError:
        return None, None
    try:
        cost = network_cost(name, options, size, size)
    except SegMateError:  # a graph brings its own network, which this version may not know
        return None, None
    return cost.parameters, cost.multiply_accumulates
