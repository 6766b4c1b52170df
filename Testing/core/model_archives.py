"""Models as they come from the web or a disk, small: archives, and entries of the list."""

from __future__ import annotations

import io
import zipfile

from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.model_manifest import RESOURCES, Licence, ManifestEntry, Source

DEMO = bundled_checkpoints("torch")["demo"]
TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def zipped(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def nnunet_zip(data_set="Dataset001_A", trainer=TRAINER, weights=None) -> bytes:
    """An archive with a model folder, whose "weights" are those of the bundled checkpoint."""
    return zipped(
        {
            f"{data_set}/{trainer}/plans.json": b"{}",
            f"{data_set}/{trainer}/dataset.json": b"{}",
            f"{data_set}/{trainer}/fold_0/checkpoint_final.pth": weights or DEMO.read_bytes(),
        }
    )


def entry(*sources: Source, folders=(f"Dataset001_A/{TRAINER}",), kind="nnunet", name="tiny_3mm"):
    licence = Licence("Apache-2.0", RESOURCES / "licences" / "Apache-2.0.txt", "https://example.org")
    return ManifestEntry(
        name, "Tiny", "nnU-Net", ("liver",), 3, 3.0, licence, "https://example.org", ("Doe 2026",),
        sources, kind, folders, {"orientation": "RAS"},
    )


def archive(url: str, hash=None, place="Dataset001_A") -> Source:
    return Source(url, True, place, None, None, hash)
