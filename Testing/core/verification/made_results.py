"""The commands under test as functions, and what older versions did not record."""

from __future__ import annotations

from pathlib import Path

from SegMateCore.cli import main

FORMS = ("organs.nii.gz", "organs.nii", "organs.nrrd", "organs.seg.nrrd")
NEW_FACTS = ("input", "labels_sha256", "content_sha256", "command", "versions")


def predicted(folder: Path, checkpoint: Path, *words) -> int:
    given = [folder / "ct.nii.gz", "-o", *words, "--checkpoint", checkpoint, "--quiet"]
    return main(["predict", *map(str, given)])


def verified(*words) -> int:
    return main(["verify", *map(str, words)])


def without(provenance: dict, *names: str) -> dict:
    return {name: value for name, value in provenance.items() if name not in names}
