"""The CTs of a scene and the items of a sequence as cases of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import slicer
from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateSlicerLib.runs.batch import BatchSummary
from SegMateSlicerLib.runs.run_options import SegmentOptions
from SegMateSlicerLib.runs.segment_run import SegmentRequest, SegmentRun
from SegMateSlicerLib.scene.scene_volumes import ct_volumes, is_in_sequence
from SegMateSlicerLib.scene.writing_results import made_by_segmate, remove_with_displays

_REFERENCE = "referenceImageGeometryRef"


@dataclass
class VolumeCase:
    """A volume of the scene. overwrite: replace an earlier segmentation by SegMate instead of skipping."""

    volume: object
    checkpoint: str
    options: SegmentOptions
    overwrite: bool

    @property
    def name(self) -> str:
        return self.volume.GetName()

    def reason_to_skip(self) -> str | None:
        earlier = segmentation_of(self.volume)
        if earlier is None or self.overwrite:
            return None
        return _("it has the segmentation {name!r} already").format(name=earlier.GetName())

    def open(self) -> SegmentRequest:
        return SegmentRequest(self.volume, self.checkpoint, segmentation_of(self.volume), self.options)

    def keep(self, run: SegmentRun, summary: BatchSummary) -> None:
        summary.nodes.append(run.segmentationNode)

    def close(self) -> None:
        """Nothing to give back."""

    def finish(self) -> None:
        """Nothing to do."""


class SequenceOutput:
    """The sequence of segmentations that grows with the cases; made with the first of them."""

    def __init__(self, source, browser):
        self.source, self.browser = source, browser
        self.node = None

    def add(self, segmentation, index_value: str) -> None:
        scene = self.source.GetScene()
        if self.node is None:
            name = scene.GenerateUniqueName(_("{name} segmentation").format(name=self.source.GetName()))
            self.node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
            for fact in ("IndexName", "IndexUnit", "IndexType"):
                getattr(self.node, f"Set{fact}")(getattr(self.source, f"Get{fact}")())
        self.node.SetDataNodeAtValue(segmentation, index_value)

    @property
    def volume_proxy(self):
        """The volume in the scene that shows the browser's item; None without one."""
        return None if self.browser is None else self.browser.GetProxyNode(self.source)

    def finish(self) -> None:
        """Let the browser show what there is together with the volumes, and in the same place."""
        node, browser = self.node, self.browser
        if node is None or browser is None or None in (node.GetScene(), browser.GetScene()):
            return
        was_modifying = browser.StartModify()
        try:
            browser.AddSynchronizedSequenceNode(node)
            # Else Slicer gives items without a segmentation a copy of their neighbour's.
            browser.SetMissingItemMode(node, browser.MissingItemDisplayHidden)
        finally:
            browser.EndModify(was_modifying)
        proxy, volume = browser.GetProxyNode(node), self.volume_proxy
        if proxy is not None and volume is not None:
            proxy.SetAndObserveTransformNodeID(volume.GetTransformNodeID())


@dataclass
class SequenceCase:
    """One item of a sequence of volumes; its segmentation goes to the output under the same index value."""

    output: SequenceOutput
    number: int
    checkpoint: str
    options: SegmentOptions

    def __post_init__(self):
        self._volume = None
        self._made: list = []

    @property
    def name(self) -> str:
        return f"{self.output.source.GetName()} [{self.output.source.GetNthIndexValue(self.number)}]"

    def reason_to_skip(self) -> str | None:
        return None

    def open(self) -> SegmentRequest:
        """The item as a hidden volume of the scene that shares its voxels."""
        source = self.output.source
        item = source.GetNthDataNode(self.number) if source.GetScene() else None
        if item is None:
            raise SegMateError(_("{name} is not there any more").format(name=self.name))
        self._volume = slicer.mrmlScene.CreateNodeByClass(item.GetClassName())
        self._volume.UnRegister(None)
        self._volume.SetName(item.GetName())
        self._volume.HideFromEditorsOn()
        self._volume.SetSaveWithScene(False)
        self._volume.CopyContent(item, False)
        slicer.mrmlScene.AddNode(self._volume)
        # The item lies where the volume that shows it lies.
        proxy = self.output.volume_proxy
        if proxy is not None:
            self._volume.SetAndObserveTransformNodeID(proxy.GetTransformNodeID())
        options = replace(self.options, table=False, show_3d=False)
        return SegmentRequest(self._volume, self.checkpoint, None, options)

    def keep(self, run: SegmentRun, summary: BatchSummary) -> None:
        self._made.append(run.segmentationNode)
        self.output.add(run.segmentationNode, self.output.source.GetNthIndexValue(self.number))
        if self.output.node not in summary.nodes:
            summary.nodes.append(self.output.node)

    def close(self) -> None:
        for node in (*self._made, self._volume):
            if node is not None:
                remove_with_displays(node)
        self._made.clear()
        self._volume = None

    def finish(self) -> None:
        """The items' output is one: the first of them shows it."""
        if self.number == 0:
            self.output.finish()


def scene_cases(scene, checkpoint: str, options: SegmentOptions, overwrite: bool) -> list[VolumeCase]:
    """Every volume of the scene that can be a CT: several slices, no label map, no item of a sequence."""
    volumes = [volume for volume in ct_volumes(scene) if _has_slices(volume) and not is_in_sequence(volume)]
    if not volumes:
        raise SegMateError(_("there is no CT in the scene, expected volumes of several slices; load one"))
    return [VolumeCase(volume, checkpoint, options, overwrite) for volume in volumes]


def sequence_cases(source, browser, checkpoint: str, options: SegmentOptions) -> list[SequenceCase]:
    """source: a vtkMRMLSequenceNode of volumes, or a volume that shows an item of one. browser: None: its.

    Raises SegMateError for anything else.
    """
    if source is not None and source.IsA("vtkMRMLVolumeNode"):
        browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", source.GetScene())
        showing = [item for item in browsers if item.GetSequenceNode(source) is not None]
        browser = browser or next(iter(showing), None)
        source = showing[0].GetSequenceNode(source) if showing else None
    if source is None or not source.IsA("vtkMRMLSequenceNode") or not source.GetNumberOfDataNodes():
        raise SegMateError(_("expected a sequence of CTs, or a volume that shows an item of one; load one"))
    if not source.GetNthDataNode(0).IsA("vtkMRMLScalarVolumeNode"):
        raise SegMateError(
            _("the sequence {name!r} holds no scalar volumes, expected CTs").format(name=source.GetName())
        )
    output = SequenceOutput(source, browser)
    count = source.GetNumberOfDataNodes()
    return [SequenceCase(output, number, checkpoint, options) for number in range(count)]


def segmentation_of(volume):
    """The first segmentation that SegMate has made on this volume, else None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volume.GetScene()):
        if node.GetNodeReference(_REFERENCE) is volume and made_by_segmate(node):
            return node
    return None


def _has_slices(volume) -> bool:
    image = volume.GetImageData()
    return image is not None and image.GetDimensions()[2] > 1
