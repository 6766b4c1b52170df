"""Which checkpoints the panel offers, and what it says about the chosen one.

Takes a folder, recent paths and a user's word ("demo" or a path), gives plain values. Only headers are
read, so that neither torch nor the weights come into Slicer's process.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slicer.i18n import tr as _

from SegMateSlicerLib.core_path import ensure_core

BUNDLED, INSTALLED, RECENT, AVAILABLE = "bundled", "installed", "recent", "available"
INSTALLED_SUFFIXES = (".onnx", ".safetensors")
ORIGINAL_SUFFIXES = (".pth", ".pt")
_TITLE_WIDTH = 106  # as the labels of the form above


@dataclass(frozen=True)
class CheckpointChoice:
    """One entry of the list.

    word: what the parameter node keeps. group: BUNDLED, INSTALLED, RECENT or AVAILABLE. reason: why it cannot
    be chosen, "" where it can.
    """

    word: str
    title: str
    group: str
    reason: str = ""


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says of itself.

    organs: rows of its organ table (name, rgb, ...). engines: that can run it. spacing_mm: (i, j, k) of the
    grid that the network works on, None for the CT's own. licences: (what, licence), the weights' first.
    onnx_precision: what the graph of its .onnx computes in. cleans_up: whether it recommends a clean-up.
    organ_sets: name -> rows, of the sets among which one may choose; organ_set: the name of the one it comes
    with, None where there is no choice.
    """

    name: str
    description: str
    demonstration: bool
    networks: tuple[str, ...]
    organs: tuple[dict, ...]
    spacing_mm: tuple[float, float, float] | None
    cases: int
    phantoms: int
    licences: tuple[tuple[str, str], ...]
    engines: tuple[str, ...]
    onnx_precision: str
    cleans_up: bool
    organ_sets: dict[str, tuple[dict, ...]] = field(default_factory=dict)
    organ_set: str | None = None

    def chosen_set(self, name: str) -> str | None:
        """The organ set that this word chooses: one of other checkpoints stands for this one's own."""
        return name if name in self.organ_sets else self.organ_set

    def organs_of(self, name: str) -> tuple[dict, ...]:
        """Rows of the organs of that set."""
        return self.organ_sets.get(name, self.organs)


def checkpoint_choices(folder: Path, recent: Sequence[str], chosen: str) -> list[CheckpointChoice]:
    """Bundled ones, downloaded ones and files in `folder`, recent ones, then public ones to download.

    `chosen` is among them, also when it is missing.
    """
    ensure_core()
    from SegMateCore.bundled import bundled_checkpoints
    from SegMateCore.models_folder import installed_models

    choices = [CheckpointChoice(name, name, BUNDLED) for name in bundled_checkpoints()]
    downloaded = [name for name in installed_models() if name not in bundled_checkpoints()]
    choices += [CheckpointChoice(name, name, INSTALLED) for name in downloaded]
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in INSTALLED_SUFFIXES)
    choices += [CheckpointChoice(str(path), path.name, INSTALLED) for path in files]
    public = [choice for choice in _public() if choice.word not in downloaded]
    for word in (*recent, chosen):
        known = {choice.word for choice in (*choices, *public)}
        if word and word not in known and (word == chosen or Path(word).is_file()):
            choices.append(CheckpointChoice(word, Path(word).name, RECENT))
    return choices + public


@functools.cache
def _public() -> tuple[CheckpointChoice, ...]:
    """The public models, as if none were here."""
    from SegMateCore.model_manifest import read_manifest

    return tuple(
        CheckpointChoice(
            entry.name,
            entry.name,
            AVAILABLE,
            _("{title}: {classes} structures at {mm} mm, {size}. The button Download... gets it.").format(
                title=entry.title, classes=entry.classes, mm=f"{entry.spacing_mm:g}", size=entry.size_text
            ),
        )
        for entry in read_manifest().values()
    )


def read_facts(word: str) -> CheckpointFacts:
    """The facts of a bundled name or a file. Raises SegMateError with one line that says what to do.

    Cheap to call often: a file is read again only when its size or time has changed.
    """
    ensure_core()
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.errors import SegMateError

    if not word:
        raise SegMateError(_("Choose a checkpoint."))
    try:
        path = resolve_checkpoint(word)
    except SegMateError:
        for choice in _public():
            if choice.word == word:
                raise SegMateError(choice.reason) from None
        raise
    if path.suffix.lower() in ORIGINAL_SUFFIXES:
        raise SegMateError(
            _(
                "{name} is a file of PyTorch, which is not opened inside Slicer. "
                "Convert it first: segmate convert {name} {stem}.safetensors"
            ).format(name=path.name, stem=path.stem)
        )
    try:
        stat = path.stat()
        return _read(path, word, (stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SegMateError(_("{path} cannot be read: {reason}").format(path=path, reason=reason)) from error


@functools.lru_cache(maxsize=32)
def _read(path: Path, word: str, stamp: tuple[int, int]) -> CheckpointFacts:
    from SegMateCore.checkpoint import Checkpoint

    checkpoint = Checkpoint.read(path)
    document = checkpoint.document
    training = document["training"]
    cases, phantoms = training.get("cases"), training.get("phantoms")
    seeds = phantoms.get("seeds") if isinstance(phantoms, dict) else None
    return CheckpointFacts(
        name=document["name"],
        description=" ".join(document["description"].split()),
        demonstration=document["demonstration"],
        networks=tuple(part.model_name for part in checkpoint.parts),
        organs=tuple(checkpoint.organs.to_list()),
        organ_sets={name: tuple(entry["organs"]) for name, entry in document["organ_sets"].items()},
        organ_set=checkpoint.organ_set,
        spacing_mm=checkpoint.parts[0].preprocessing.spacing_mm,
        cases=len(cases) if isinstance(cases, list) else 0,
        phantoms=len(seeds) if isinstance(seeds, list) else 0,
        licences=tuple((str(entry["what"]), str(entry["licence"])) for entry in document["licences"]),
        engines=_engines(path, word),
        onnx_precision=document["precision"] or "fp32",
        cleans_up=bool(document["clean_up"]),
    )


def _engines(path: Path, word: str) -> tuple[str, ...]:
    """A name may stand for two files, one per engine."""
    from SegMateCore.bundled import resolve_checkpoint

    paths = {path, resolve_checkpoint(word, "torch")}
    suffixes = {path.suffix.lower() for path in paths}
    return tuple(
        engine for engine, suffix in zip(("onnxruntime", "torch"), INSTALLED_SUFFIXES) if suffix in suffixes
    )


def facts_html(facts: CheckpointFacts) -> str:
    """A short table of the facts for a label; texts from the file are escaped."""
    networks = ", ".join(dict.fromkeys(facts.networks))
    if len(facts.networks) > 1:
        networks = _("{count} networks: {names}").format(count=len(facts.networks), names=networks)
    spacing = facts.spacing_mm
    grid = _("the CT's own") if spacing is None else " × ".join(f"{mm:g}" for mm in spacing) + " mm"
    rows = [
        (_("Network"), networks),
        (_("Organs"), str(len(facts.organs))),
        (_("Works at"), grid),
        (_("Trained on"), _trained_on(facts)),
        (_("Licence"), facts.licences[0][1] if facts.licences else _("not stated")),
    ]
    cells = "".join(
        f"<tr><td width='{_TITLE_WIDTH}'>{html.escape(title)}</td><td>{html.escape(text)}</td></tr>"
        for title, text in rows
        if text
    )
    table = f"<table cellspacing='0' cellpadding='0' style='margin-top:6px'>{cells}</table>"
    return f"<p>{html.escape(facts.description)}</p>{table}" if facts.description else table


def licences_text(facts: CheckpointFacts) -> str:
    """All licences, one per line, for a tooltip."""
    return "\n".join(f"{what}: {licence}" for what, licence in facts.licences)


def _trained_on(facts: CheckpointFacts) -> str:
    parts = []
    if facts.cases:
        parts.append(_("{count} CTs").format(count=facts.cases))
    if facts.phantoms:
        parts.append(_("{count} synthetic anatomies").format(count=facts.phantoms))
    return ", ".join(parts)
