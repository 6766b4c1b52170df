"""What a Predictor is opened with, as a value that can be sent to other processes and machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from SegMateCore.backends.choosing import chosen_file
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.predictor import Predictor


@dataclass(frozen=True)
class Opening:
    """The words of Predictor.from_checkpoint. checkpoint: a file or a bundled or downloaded name."""

    checkpoint: str = "demo"
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    organ_set: str | None = None

    def open(self) -> Predictor:
        """Load the networks. Raises SegMateError."""
        return Predictor.from_checkpoint(
            self.checkpoint, self.device, self.backend, self.precision, self.threads, self.organ_set
        )

    def document(self) -> Checkpoint:
        """The checkpoint alone, for one who runs no network. Raises SegMateError."""
        file, _ = chosen_file(self.checkpoint, self.backend, self.device, self.precision)
        checkpoint = Checkpoint.read(file)
        return checkpoint if self.organ_set is None else checkpoint.with_organ_set(self.organ_set)

    def elsewhere(self) -> Opening:
        """The same for a process in another folder: the path of a file made absolute, names left alone."""
        path = Path(self.checkpoint)
        return replace(self, checkpoint=str(path.resolve())) if path.is_file() else self
