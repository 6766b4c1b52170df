"""What the panel remembers from one session of Slicer to the next, under "SegMate/" in Slicer's settings.

Takes a QSettings (or anything with value, setValue and fileName). Values are stored as text, since
QSettings keeps the types of other values on some platforms only.
"""

from __future__ import annotations

import json
from pathlib import Path

MOST_RECENT = 5
_PREFIX = "SegMate/"
# Field of the parameter node -> key. These are choices of a person or of a machine, not of one scene.
REMEMBERED = {
    "checkpoint": "Checkpoint",
    "organSet": "OrganSet",
    "engine": "Engine",
    "device": "Device",
    "precision": "Precision",
    "cleanUp": "CleanUp",
    "show3d": "Show3D",
}


class Settings:
    """Remembered choices, recent checkpoints and the folder of the user's own checkpoints."""

    def __init__(self, store):
        self._store = store

    def remembered(self) -> dict[str, str | bool]:
        """Field -> value, only for fields that were stored before."""
        found = {field: self._text(key) for field, key in REMEMBERED.items()}
        values: dict[str, str | bool] = {field: text for field, text in found.items() if text}
        if "show3d" in values:
            values["show3d"] = values["show3d"] == "true"
        return values

    def remember(self, field: str, value: str | bool) -> None:
        """Store one of REMEMBERED's fields."""
        text = ("true" if value else "false") if isinstance(value, bool) else value
        self._store.setValue(_PREFIX + REMEMBERED[field], text)

    @property
    def checkpoint_folder(self) -> Path:
        """Where checkpoints lie that the panel lists; it need not exist."""
        stored = self._text("CheckpointFolder")
        return Path(stored) if stored else Path(self._store.fileName()).parent / "SegMate" / "checkpoints"

    @property
    def recent(self) -> list[str]:
        """Paths of checkpoints that were chosen by hand, the newest first."""
        try:
            paths = json.loads(self._text("RecentCheckpoints") or "[]")
        except ValueError:  # edited by hand
            return []
        return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []

    def add_recent(self, path: str) -> None:
        """Put `path` first and keep MOST_RECENT."""
        paths = [path, *(other for other in self.recent if other != path)][:MOST_RECENT]
        self._store.setValue(_PREFIX + "RecentCheckpoints", json.dumps(paths))

    def _text(self, key: str) -> str:
        value = self._store.value(_PREFIX + key)
        return "" if value is None else str(value)
