"""A training recipe as a value: everything that decides what a run computes, apart from its cases.

Takes TOML (the bundled `demo`, or a file), gives a frozen Recipe that goes unchanged into the checkpoint's
training record. What the demonstration recipe gave: docs/demo_model_card.md.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from os import PathLike
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing

BUNDLED = ("demo",)


@dataclass(frozen=True)
class Augmentation:
    """How chunks are varied. Probabilities 0..1; angles in degrees; scales as natural logarithms.

    repaint: share of chunks of completely annotated CTs whose tissues get new HU; hu_shift: share of the
    other real chunks whose tissues' HU are shifted; mirror: left/right flips, with the paired channels
    swapped.
    """

    organ_centred: float = 0.6
    axis_scale: float = 0.25
    overall_scale: float = 0.15
    slice_spacing: tuple[float, float] = (0.6, 1.5)
    rotation_deg: tuple[float, float, float] = (15.0, 8.0, 8.0)
    coarse_warp_mm: float = 13.0
    fine_warp_mm: float = 5.0
    mirror: float = 0.25
    repaint: float = 0.5
    hu_shift: float = 0.5
    degradation: bool = True


@dataclass(frozen=True)
class Loss:
    """Weights of the loss terms and of the organs in them, in channel order."""

    bce: float = 5.0
    dice: float = 1.0
    cross_entropy: float = 0.5
    organ_weights: tuple[float, ...] = (1, 1, 5, 6, 1, 4, 4, 4, 6)


@dataclass(frozen=True)
class Sampling:
    """Where slices come from.

    mix: share of each group of cases, of the groups that are there; case_weights: a case's weight within
    its group (1 where not named); organ_weights: how often a chunk is centred on each organ; rows, columns:
    of a crop, in working voxels; chunk_slices: slices per chunk; pool_chunks: chunks held; steps_per_chunk:
    training steps between two renewals of one chunk.
    """

    mix: dict[str, float] = field(
        default_factory=lambda: {"complete": 0.45, "partial": 0.10, "pseudo": 0.15, "phantom": 0.30}
    )
    case_weights: dict[str, float] = field(default_factory=dict)
    organ_weights: tuple[float, ...] = (1, 1, 1.5, 2, 1, 1.5, 1.5, 1.5, 1.5)
    rows: int = 128
    columns: int = 128
    chunk_slices: int = 16
    pool_chunks: int = 64
    steps_per_chunk: int = 2


@dataclass(frozen=True)
class Optimisation:
    """AdamW with linear warm-up (share of all steps), then a cosine to `final_rate` x the rate."""

    steps: int = 12000
    batch: int = 8
    rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.05
    final_rate: float = 0.005
    clip_norm: float = 5.0
    average_decay: float = 0.998
    bfloat16: bool = True
    channels_last: bool = True
    save_every: int = 500
    log_every: int = 50


@dataclass(frozen=True)
class Recipe:
    """One training run. Raises SegMateError for values that cannot work."""

    name: str
    model: str
    preprocessing: Preprocessing
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)
    sampling: Sampling = field(default_factory=Sampling)
    optimisation: Optimisation = field(default_factory=Optimisation)
    model_options: dict = field(default_factory=dict)
    clean_up: dict = field(default_factory=dict)
    description: str = ""
    demonstration: bool = False
    seed: int = 0

    def __post_init__(self):
        optimisation, sampling = self.optimisation, self.sampling
        counts = {
            "optimisation.steps": optimisation.steps,
            "optimisation.batch": optimisation.batch,
            "optimisation.save_every": optimisation.save_every,
            "optimisation.log_every": optimisation.log_every,
            "sampling.rows": sampling.rows,
            "sampling.columns": sampling.columns,
            "sampling.chunk_slices": sampling.chunk_slices,
            "sampling.pool_chunks": sampling.pool_chunks,
            "sampling.steps_per_chunk": sampling.steps_per_chunk,
        }
        for key, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SegMateError(f"recipe {self.name}: {key} is {value!r}, expected a whole number from 1")
        if sampling.pool_chunks < optimisation.batch:
            raise SegMateError(
                f"recipe {self.name}: sampling.pool_chunks is {sampling.pool_chunks}, expected at least the"
                f" batch of {optimisation.batch}: the slices of a batch come from different chunks"
            )
        if sampling.rows % 32 or sampling.columns % 32:
            raise SegMateError(f"recipe {self.name}: rows and columns must be multiples of 32")
        if self.preprocessing.spacing_mm is None:
            raise SegMateError(
                f"recipe {self.name}: training needs a working spacing, preprocessing has null"
            )
        if not all(_is_share(value) for value in sampling.mix.values()):
            raise SegMateError(f"recipe {self.name}: sampling.mix is {sampling.mix}, expected numbers from 0")

    @classmethod
    def from_toml(cls, path: str | PathLike) -> Recipe:
        """The recipe in a TOML file. Raises SegMateError for unknown keys and impossible values."""
        path = Path(path)
        try:
            return cls.from_dict(_parse_toml(path.read_bytes(), str(path)), str(path))
        except OSError as error:
            raise SegMateError(f"cannot read the recipe {path}: {error.strerror or error}") from None

    @classmethod
    def bundled(cls, name: str = "demo") -> Recipe:
        """A recipe that comes with the package."""
        if name not in BUNDLED:
            raise SegMateError(f"no bundled recipe {name!r}, expected {', '.join(BUNDLED)} or a .toml file")
        file = resources.files("SegMateCore").joinpath(f"resources/recipes/{name}.toml")
        return cls.from_dict(_parse_toml(file.read_bytes(), name), name)

    @classmethod
    def from_dict(cls, entry: dict, source: str = "recipe") -> Recipe:
        """From parsed TOML, or from the record in a checkpoint: the inverse of to_dict."""
        entry = dict(entry)
        for key in ("name", "model", "preprocessing"):
            if key not in entry:
                raise SegMateError(f"{source}: {key} is missing")
        entry["preprocessing"] = Preprocessing.from_dict(_tuples(entry["preprocessing"]))
        sections = {
            "augmentation": Augmentation,
            "loss": Loss,
            "sampling": Sampling,
            "optimisation": Optimisation,
        }
        for key, kind in sections.items():
            entry[key] = _section(kind, entry.get(key, {}), f"{source}: {key}")
        return _section(cls, entry, source)

    def to_dict(self) -> dict:
        """JSON-able."""
        return {**asdict(self), "preprocessing": self.preprocessing.to_dict()}

    def with_run(self, steps: int | None = None, seed: int | None = None) -> Recipe:
        """The same recipe with another length or seed; None keeps what is there."""
        optimisation = self.optimisation if steps is None else replace(self.optimisation, steps=steps)
        return replace(self, optimisation=optimisation, seed=self.seed if seed is None else seed)


def _section(kind, values: dict, source: str):
    known = {item.name for item in fields(kind)}
    if not isinstance(values, dict) or set(values) - known:
        given = sorted(set(values) - known) if isinstance(values, dict) else values
        raise SegMateError(f"{source} has {given}, expected only {', '.join(sorted(known))}")
    return kind(**_tuples(values))


def _tuples(values: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _is_share(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0


def _parse_toml(content: bytes, source: str) -> dict:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SegMateError(f"the recipe {source} is not valid TOML: {error}") from None
