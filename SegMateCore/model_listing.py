"""What `segmate models` says: the networks that this version can build, the checkpoints that came with it or
were downloaded, and the public models that can be.

Takes nothing, gives rows or a text. Reads neither torch nor weights.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.console import table
from SegMateCore.errors import SegMateError
from SegMateCore.model_manifest import ManifestEntry, read_manifest
from SegMateCore.models import list_models, model_entry
from SegMateCore.models_folder import installed_models, models_folder, read_record


def model_rows() -> list[dict]:
    """One row per network: name, parameters (0 where the table has none), summary, published name or None."""
    entries = [model_entry(name) for name in list_models()]
    return [
        {
            "name": entry.name,
            "parameters": entry.parameters,
            "summary": entry.summary,
            "published": entry.published,
        }
        for entry in entries
    ]


def checkpoint_rows() -> list[dict]:
    """One row per bundled file: name to ask for, path, network, description, demonstration, megabytes."""
    rows = []
    for backend in ("onnxruntime", "torch"):
        for name, path in bundled_checkpoints(backend).items():
            if path not in [row["path"] for row in rows]:
                rows.append(_checkpoint_row(name, path))
    return sorted(rows, key=lambda row: (row["name"], row["path"].suffix))


def _checkpoint_row(name: str, path: Path) -> dict:
    document = Checkpoint.read(path).document
    return {
        "name": name,
        "path": path,
        "model": ", ".join(part["model"]["name"] for part in document["parts"]),
        "description": document["description"],
        "demonstration": document["demonstration"],
        "megabytes": path.stat().st_size / 1e6,
    }


def installed_rows() -> list[dict]:
    """One row per file in the models' folder: name, path, megabytes, verified (None: not known), problem.

    verified: whether a published hash was known for all that was downloaded. problem: "" if it is readable.
    """
    rows = []
    for backend in ("onnxruntime", "torch"):
        for name, path in installed_models(backend).items():
            if path in [row["path"] for row in rows]:
                continue
            sources = read_record(path).get("sources", [])
            try:
                row = _checkpoint_row(name, path) | {"problem": ""}
            except SegMateError as error:
                row = {"name": name, "path": path, "problem": str(error)}
            known = bool(sources) and all("verified" in source for source in sources)
            row["verified"] = all(source["verified"] for source in sources) if known else None
            rows.append(row)
    return sorted(rows, key=lambda row: (row["name"], row["path"].suffix))


def available_rows() -> list[dict]:
    """One row per public model: what the list says of it, and the installed file or None."""
    installed = installed_models()
    return [_available_row(entry, installed.get(entry.name)) for entry in read_manifest().values()]


def _available_row(entry: ManifestEntry, path: Path | None) -> dict:
    return {
        "name": entry.name,
        "title": entry.title,
        "architecture": entry.architecture,
        "organs": list(entry.organs),
        "classes": entry.classes,
        "spacing_mm": entry.spacing_mm,
        "size": entry.size_text,
        "licence": entry.licence.identifier,
        "homepage": entry.homepage,
        "citations": list(entry.citations),
        "sources": [source.url for source in entry.sources],
        "installed": path,
    }


def format_available() -> str:
    """The public models as a table."""
    rows = [
        (
            row["name"],
            f"{len(row['organs'])} of 9",
            row["classes"],
            f"{row['spacing_mm']:g}",
            row["size"],
            row["licence"],
            "yes" if row["installed"] else "",
        )
        for row in available_rows()
    ]
    header = ("name", "organs", "structures", "mm", "download", "licence", "installed")
    return f"{table(rows, header)}\n\n`segmate download NAME` gets one; they lie in {models_folder()}"


def format_listing() -> str:
    """The networks and the checkpoints that are here, as text."""
    models = [
        (row["name"], f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "", row["summary"])
        for row in model_rows()
    ]
    checkpoints = [
        (
            row["name"],
            f"{row['megabytes']:.1f} MB",
            f"{row['path'].suffix}, {row['model']}"
            + (", demonstration only" if row["demonstration"] else ""),
        )
        for row in checkpoint_rows()
    ]
    downloaded = [_installed_line(row) for row in installed_rows()]
    width = max(len(row[0]) for row in models + checkpoints + downloaded)
    lines = ["networks:", *_lines(models, width), "bundled checkpoints:"]
    lines += _lines(checkpoints, width) or ["  none"]
    if downloaded:
        lines += ["downloaded checkpoints:", *_lines(downloaded, width)]
    return "\n".join([*lines, "public models: segmate models --available"])


def _installed_line(row: dict) -> tuple[str, str, str]:
    if row["problem"]:
        return row["name"], "", row["problem"]
    text = f"{row['path'].suffix}, {row['model']}"
    return row["name"], f"{row['megabytes']:.1f} MB", text + (", unverified" * (row["verified"] is False))


def _lines(rows: list[tuple[str, str, str]], width: int) -> list[str]:
    return [f"  {name.ljust(width)}  {size.rjust(8)}  {text}".rstrip() for name, size, text in rows]
