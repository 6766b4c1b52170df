"""Where downloaded and imported models lie, and which word names which of them.

$SEGMATE_MODELS, or the folder in which this system keeps the data of programs. In it: NAME.safetensors (or
.onnx), which the word NAME stands for; NAME.json, where it came from; downloads/NAME/, what has come so far
of a download that is not finished.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.json_text import parse_json

SUFFIXES = (".onnx", ".safetensors")


def models_folder(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The folder; it need not exist. platform: as sys.platform.

    After the XDG Base Directory Specification on Linux, Application Support on macOS, and the local
    application data of Windows, which do not roam: models are large.
    """
    chosen = environment.get("SEGMATE_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    home = Path.home()
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "SegMate" / "models"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "SegMate" / "models"
    data = environment.get("XDG_DATA_HOME", "")
    # The specification: a relative path there is to be ignored.
    return (Path(data) if os.path.isabs(data) else home / ".local" / "share") / "segmate" / "models"


def installed_models(backend: str = "auto", folder: Path | None = None) -> dict[str, Path]:
    """Name -> file. backend: "torch" takes the .safetensors of a name that has both, any other its .onnx."""
    folder = models_folder() if folder is None else folder
    found: dict[str, Path] = {}
    for suffix in SUFFIXES[::-1] if backend == "torch" else SUFFIXES:
        # atomic.py's unfinished files begin with a dot.
        for path in folder.glob(f"[!.]*{suffix}"):
            if path.is_file():
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def download_folder(name: str, folder: Path) -> Path:
    """Where the unfinished download of a model is kept."""
    return folder / "downloads" / name


def record_path(path: Path) -> Path:
    """The file that says where the model in `path` came from."""
    return path.with_name(f"{path.stem}.json")


def read_record(path: Path) -> dict:
    """Where the model in `path` came from; {} where that is not known."""
    try:
        record = parse_json(record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sources = record.get("sources", []) if isinstance(record, dict) else None
    return record if isinstance(sources, list) and all(isinstance(s, dict) for s in sources) else {}


def write_record(path: Path, record: dict) -> None:
    """Beside the model in `path`. Raises SegMateError."""
    with atomic_write(record_path(path)) as stream:
        stream.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
