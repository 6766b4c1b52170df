"""The CT files of a folder as cases of a batch: loaded one at a time, results written, nodes removed again.

What is finished stays, so that a batch which was stopped can be started again.
"""

from __future__ import annotations

import os
import re
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
from SegMateSlicerLib.scene.volume_exchange import roi_ras_to_unit
from SegMateSlicerLib.scene.writing_results import ATTRIBUTE, remove_with_displays, tag_value

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION_SUFFIX = ".seg.nrrd"
TABLE_NAME = "segmate_volumes.csv"
_HEADER_BYTES = 1 << 22


@dataclass
class FolderOutput:
    """Where results go: FOLDER/<case>.seg.nrrd and one table of all.

    organs: names of those in each file. provenance: what decides whether a result is that of this batch.
    """

    folder: Path
    table: CaseTable
    organs: frozenset[str]
    provenance: dict

    def check_same_origin(self, path: Path) -> None:
        """Raises SegMateError for a result that this batch would not make."""
        header = _header(path)
        found = frozenset(re.findall(r"^Segment\d+_Name:=(.*?)\r?$", header, re.MULTILINE))
        others = {
            "weights_sha256": _("by this checkpoint"), "flip_average": _("with this flip averaging"),
            "clean_up": _("with this clean-up"), "region": _("inside this region"),
        }  # fmt: skip
        for fact, how in others.items():
            if f"{ATTRIBUTE}{fact}:{tag_value(self.provenance[fact])}" not in header:
                raise SegMateError(
                    _("{path} exists and was not made {how}: choose another folder, or remove it")
                    .format(path=path, how=how)
                )  # fmt: skip
        if found != self.organs:
            raise SegMateError(
                _("{path} exists and holds other organs ({found}): choose another folder, or remove it")
                .format(path=path, found=", ".join(sorted(found)))
            )  # fmt: skip


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
        """Finished, with the same choices. Raises SegMateError for a result of other ones."""
        if self.overwrite or not self.target.is_file():
            return None
        self.output.check_same_origin(self.target)
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
        rows = [_statistics(row) for row in run.statistics]
        self.output.table.replace(self.name, rows, run.provenance)
        self.output.table.write()

    def close(self) -> None:
        for node in self._nodes:
            remove_with_displays(node)
        self._nodes.clear()

    def finish(self) -> None:
        """Nothing to do: files and table are whole after each case."""


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
            _("there is no CT in {path}, expected files that end with {known}; a folder of DICOM: import it"
              " in Slicer's DICOM module, load it and use \"Every CT of the scene\"")
            .format(path=source, known=", ".join(SUFFIXES))
        )  # fmt: skip
    cases: dict[str, Path] = {}
    for path in files:
        other = cases.setdefault(_case_name(path).lower(), path)
        if other != path:
            raise SegMateError(
                _("{one} and {two} would have one result: rename one of them").format(one=other, two=path)
            )
    read = Checkpoint.read(resolve_checkpoint(checkpoint, options.backend))
    if options.organ_set is not None:
        read = read.with_organ_set(options.organ_set)
    organs = frozenset(options.organs or read.organs.names)
    output = FolderOutput(target, CaseTable.read(target / TABLE_NAME), organs, _provenance(read, options))
    return [FileCase(path, output, checkpoint, options, overwrite) for path in files]


def _provenance(checkpoint: Checkpoint, options: SegmentOptions) -> dict:
    """What the worker will say of results with these choices."""
    clean_up = options.clean_up
    if clean_up is None:
        rules = checkpoint.document["clean_up"] or {}
        clean_up = any(organ in rules for organ in checkpoint.organs.names)
    region = None if options.roi is None else {"ras_to_unit": roi_ras_to_unit(options.roi)}
    return {
        "weights_sha256": checkpoint.weights_sha256,
        "flip_average": options.flip_average,
        "clean_up": clean_up,
        "region": region,
    }


def _case_name(path: Path) -> str:
    suffix = next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]


def _header(path: Path) -> str:
    with open(path, "rb") as stream:
        return stream.read(_HEADER_BYTES).partition(b"\n\n")[0].decode("utf-8", "replace")


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
