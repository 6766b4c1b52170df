"""The panel's choices for one scene: a typed view on Slicer's parameter node, which the scene keeps.

Annotations are evaluated by Slicer's parameterNodeWrapper, so this file has no `from __future__` import.
"""

from typing import Annotated

from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

ENGINES = ("auto", "onnxruntime", "torch")
PRECISIONS = ("auto", "fast", "fp32", "bf16", "fp16")
CLEAN_UP = ("checkpoint", "always", "never")
LARGEST_CHUNK = 64
NODE_FIELDS = ("inputVolume", "outputSegmentation", "regionOfInterest", "resultTable")


@parameterNodeWrapper
class SegMateParameters:
    """Fields that scripts may set; the panel follows.

    checkpoint: a bundled name like "demo", or a path. organSet: of a checkpoint with several, another name
    stands for the one it comes with. outputSegmentation: None makes a new one.
    skippedOrgans: names that are not to be segmented; kept as exceptions, so that a checkpoint with other
    organs starts with all of its own. device: "auto", "cpu", "cuda:0", "mps". chunk: slices per network
    call. resultTable: the figures of the last run. initialized: whether the choices remembered from earlier
    sessions have been filled in.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    checkpoint: str = "demo"
    organSet: str = ""
    outputSegmentation: vtkMRMLSegmentationNode
    skippedOrgans: list[str]
    regionOfInterest: vtkMRMLMarkupsROINode
    engine: Annotated[str, Choice(ENGINES)] = "auto"
    device: str = "auto"
    precision: Annotated[str, Choice(PRECISIONS)] = "auto"
    cleanUp: Annotated[str, Choice(CLEAN_UP)] = "checkpoint"
    flipAverage: bool = False
    chunk: Annotated[int, WithinRange(1, LARGEST_CHUNK)] = 8
    force: bool = False
    show3d: bool = True
    resultTable: vtkMRMLTableNode
    initialized: bool = False
