"""The answer of the worker goes into the scene: segments, provenance, table; all of it or nothing.

Takes a SegmentRequest, the label image and the answer to the worker's run request. Provenance is kept as
attributes "SegMate.<fact>" of the segmentation node, which the scene saves, and as a tag of each segment,
which the .seg.nrrd file saves and `segmate verify` reads.
"""

from __future__ import annotations

import json

from slicer.i18n import tr as _

from SegMateCore.organs import OrganSet
from SegMateCore.segment_tags import SEGMENT_TAG, segment_documents
from SegMateSlicerLib.scene.result_table import write_table
from SegMateSlicerLib.scene.segmentation_node import create_segmentation, place_segments

ATTRIBUTE = "SegMate."
TABLE_ROLE = "SegMateTable"
_SEGMENT_FACTS = ("checkpoint", "weights_sha256", "flip_average", "clean_up", "region", "notice")


def place_results(request, labels, organs: OrganSet, answer: dict) -> tuple:
    """Segments, provenance and, if wanted, the table, in one batch; gives (segmentation node, table or None).

    What was new is removed again when something fails.
    """
    scene = request.volume.GetScene()
    made = []
    scene.StartState(scene.BatchProcessState)
    try:
        node = request.target
        if node is None:
            node = create_segmentation(request.volume)
            made.append(node)
        ids = place_segments(node, request.volume, labels, organs)
        _write_provenance(node, ids, organs, answer["provenance"])
        table = _table_of(node, made) if request.options.table else None
        if table is not None:
            write_table(table, answer["statistics"], _names_of(node.GetSegmentation()))
        # One that a script has made has none; nothing would be seen of it.
        node.CreateDefaultDisplayNodes()
    except BaseException:
        for new in reversed(made):
            remove_with_displays(new)
        raise
    finally:
        scene.EndState(scene.BatchProcessState)
    return node, table


def made_by_segmate(segmentation_node) -> bool:
    """Whether a run has written into this segmentation."""
    return segmentation_node.GetAttribute(f"{ATTRIBUTE}weights_sha256") is not None


def hide_3d(segmentation_node) -> None:
    """Until all surfaces are there: a view that shows one would make the others itself, frozen."""
    segmentation_node.GetDisplayNode().SetVisibility3D(False)


def remove_with_displays(node) -> None:
    """Remove a node together with its display and storage nodes."""
    scene = node.GetScene()
    if scene is None:
        return
    owned = [node.GetStorageNode()]
    if node.IsA("vtkMRMLDisplayableNode"):
        owned += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    scene.RemoveNode(node)
    for other in owned:
        if other is not None:
            scene.RemoveNode(other)


def tag_value(value) -> str:
    """A fact of the provenance as a segment's tag says it; ":" and "|" separate tags in .seg.nrrd files."""
    return _as_text(value).replace(":", " ").replace("|", " ")


def _as_text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _write_provenance(node, segment_ids: list[str], organs: OrganSet, provenance: dict) -> None:
    for fact, value in provenance.items():
        node.SetAttribute(f"{ATTRIBUTE}{fact}", _as_text(value))
    # Segments of one node may come from several runs; their tags travel in the .seg.nrrd file.
    for segment_id, document in zip(segment_ids, segment_documents(organs, provenance)):
        segment = node.GetSegmentation().GetSegment(segment_id)
        for fact in _SEGMENT_FACTS:
            segment.SetTag(f"{ATTRIBUTE}{fact}", tag_value(provenance[fact]))
        segment.SetTag(SEGMENT_TAG, document)


def _names_of(segmentation) -> set[str]:
    """What the organs of the segments are called, also of those that the user has given another name."""
    ids = segmentation.GetSegmentIDs()
    names = {segmentation.GetSegment(segment_id).GetName() for segment_id in ids}
    return names | {segment_id.replace("_", " ") for segment_id in ids}


def _table_of(node, made: list):
    """The table of the segmentation: the one that an earlier run has made, else a new one."""
    table = node.GetNodeReference(TABLE_ROLE)
    if table is None:
        scene = node.GetScene()
        name = scene.GenerateUniqueName(_("{name} volumes").format(name=node.GetName()))
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        made.append(table)
        node.SetNodeReferenceID(TABLE_ROLE, table.GetID())
    return table
