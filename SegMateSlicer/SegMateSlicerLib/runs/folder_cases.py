"""The CT files of a folder as cases of a batch: loaded one at a time, results written, nodes removed again.

What is finished stays, so that a batch which was stopped can be started again.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SegMateCore.atomic import atomic_path
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.case_table import CaseTable
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.statistics import OrganStatistics
from SegMateSlicerLib.runs.batch import BatchSummary
from SegMateSlicerLib.runs.run_options import SegmentOptions
from SegMateSlicerLib.runs.segment_run import SegmentRequest, SegmentRun
from SegMateSlicerLib.scene.writing_results import ATTRIBUTE, remove_with_displays

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION_SUFFIX = ".seg.nrrd"
TABLE_NAME = "segmate_volumes.csv"
_HEADER_BYTES = 1 << 18


@dataclass
class FolderOutput:
    """Where results go: FOLDER/<case>.seg.nrrd and one table of all. weights_sha256: of the checkpoint."""

    folder: Path
    table: CaseTable
    weights_sha256: str


@dataclass
class FileCase:
    """One CT file. overwrite: do it again, also where its result is there."""

    path: Path
    output: FolderOutput
    checkpoint: str
    options: SegmentOptions
    overwrite: bool

    def __post_init__(self):
        self._nodes: list = []

    @property
    def name(self) -> str:
        return _case_name(self.path)

    @property
    def target(self) -> Path:
        return self.output.folder / f"{self.name}{SEGMENTATION_SUFFIX}"

    def reason_to_skip(self) -> str | None:
        """Finished by the same checkpoint. Raises SegMateError for a result that another one has made."""
        if self.overwrite or not self.target.is_file():
            return None
        if f"{ATTRIBUTE}weights_sha256:{self.output.weights_sha256}".encode() not in _header(self.target):
            raise SegMateError(
                _("{path} exists and was not made by this checkpoint: choose another folder, or remove it")
                .format(path=self.target)
            )  # fmt: skip
        # A batch that was stopped between the file and the table does this case again.
        return _("finished before") if self.name in self.output.table else None

    def open(self) -> SegmentRequest:
        with _remembered_new_nodes(self._nodes):
            try:
                volume = slicer.util.loadVolume(str(self.path), {"show": False, "singleFile": True})
            except RuntimeError as error:
                raise SegMateError(
                    _("{path} cannot be loaded; is it a CT that Slicer opens?").format(path=self.path)
                ) from error
        options = replace(self.options, table=False, show_3d=False)
        return SegmentRequest(volume, self.checkpoint, None, options)

    def keep(self, run: SegmentRun, summary: BatchSummary) -> None:
        node = run.segmentationNode
        self._nodes.append(node)
        with atomic_path(self.target) as temporary:
            # exportNode is not used: it may open a dialog with messages.
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
            storage.SetFileName(str(temporary))
            if not storage.WriteData(node):
                raise SegMateError(_("Slicer could not write {path}").format(path=self.target))
        self.output.table.replace(self.name, [_statistics(row) for row in run.statistics])
        self.output.table.write()

    def close(self) -> None:
        for node in self._nodes:
            remove_with_displays(node)
        self._nodes.clear()


def folder_cases(
    source: str | os.PathLike, target: str | os.PathLike, checkpoint: str, options: SegmentOptions,
    overwrite: bool,
) -> list[FileCase]:  # fmt: skip
    """The CT files directly in `source`, sorted by name. Raises SegMateError for none and doubled names."""
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise SegMateError(_("{path} is no folder, expected one with CT files").format(path=source))
    names = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [path for path in names if path.name.lower().endswith(SUFFIXES)
             and not path.name.lower().endswith(SEGMENTATION_SUFFIX)]  # fmt: skip
    if not files:
        raise SegMateError(
            _("there is no CT in {path}, expected files that end with {known}")
            .format(path=source, known=", ".join(SUFFIXES))
        )  # fmt: skip
    cases: dict[str, Path] = {}
    for path in files:
        other = cases.setdefault(_case_name(path).lower(), path)
        if other != path:
            raise SegMateError(
                _("{one} and {two} would have one result: rename one of them").format(one=other, two=path)
            )
    weights = Checkpoint.read(resolve_checkpoint(checkpoint, options.backend)).weights_sha256
    output = FolderOutput(target, CaseTable.read(target / TABLE_NAME), weights)
    return [FileCase(path, output, checkpoint, options, overwrite) for path in files]


def _case_name(path: Path) -> str:
    suffix = next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]


def _header(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(_HEADER_BYTES).partition(b"\n\n")[0]


def _statistics(row: dict) -> OrganStatistics:
    facts = {name: value for name, value in row.items() if name != "truncated"}
    facts |= {name: tuple(row[name]) for name in ("extent_mm", "borders")}
    return OrganStatistics(**facts)


@contextmanager
def _remembered_new_nodes(nodes: list):
    """Add to `nodes` what loading a file has put into the scene, also where it fails half-way."""
    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    try:
        yield
    finally:
        now = slicer.util.getNodesByClass("vtkMRMLStorableNode")
        nodes += [node for node in now if node.GetID() not in before]
