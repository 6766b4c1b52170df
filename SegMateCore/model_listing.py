"""What `segmate models` says: the networks that this version can build and the checkpoints that came with it.

Takes nothing, gives rows or a text. Reads neither torch nor weights.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.models import list_models, model_entry


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


def format_listing() -> str:
    """Both tables as text."""
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
    width = max(len(row[0]) for row in models + checkpoints)
    lines = ["networks:", *_lines(models, width), "bundled checkpoints:"]
    return "\n".join([*lines, *(_lines(checkpoints, width) or ["  none"])])


def _lines(rows: list[tuple[str, str, str]], width: int) -> list[str]:
    return [f"  {name.ljust(width)}  {size.rjust(8)}  {text}".rstrip() for name, size, text in rows]
