"""The table node holds the figures of the statistics, typed, with units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import slicer
import vtk

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.statistics import organ_statistics
from SegMateCore.volume import Volume


@pytest.fixture
def write_table(host):
    from SegMateSlicerLib.scene.result_table import write_table

    return write_table


@pytest.fixture(scope="module")
def rows():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[:2, 2, 3] = NINE.by_name("liver").label
    hu = np.arange(120, dtype=np.int16).reshape(labels.shape)
    affine = np.diag([10.0, 10, 10, 1])
    return [row.to_dict() for row in organ_statistics(Segmentation(labels, affine), Volume(hu, affine))]


def column(node, name):
    index = node.GetColumnIndex(name)
    return [node.GetTable().GetValue(row, index) for row in range(node.GetNumberOfRows())]


def test_figures_and_types(scene, write_table, rows):
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "figures")
    write_table(node, rows)
    assert [value.ToString() for value in column(node, "organ")] == list(NINE.names)
    liver = NINE.names.index("liver")
    volumes = [value.ToDouble() for value in column(node, "volume_ml")]
    assert volumes[liver] == 2.0 and sum(volumes) == 2.0
    # Voxels 15 and 45.
    means = [value.ToDouble() for value in column(node, "mean_hu")]
    assert means[liver] == 30
    assert [math.isnan(mean) for mean in means].count(True) == 8
    truncated = [value.ToString() for value in column(node, "truncated")]
    assert truncated[liver] == "inferior" and truncated.count("no") == 8
    assert node.GetColumnType("volume_ml") == vtk.VTK_DOUBLE and node.GetColumnType("organ") == vtk.VTK_STRING
    assert node.GetColumnUnitLabel("volume_ml") == "ml" and node.GetColumnUnitLabel("mean_hu") == "HU"
    assert node.GetColumnTitle("mean_hu") == "Mean" and node.GetColumnDescription("truncated")


def test_content_is_replaced_with_one_event(scene, write_table, rows):
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "figures")
    write_table(node, rows)
    node.SetColumnProperty("organ", "old", "1")
    events = []
    tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: events.append(node.GetNumberOfRows()))
    write_table(node, rows[:3])
    node.RemoveObserver(tag)
    assert events == [3] and node.GetNumberOfColumns() == 4
    assert node.GetColumnProperty("organ", "old") == ""


def test_table_is_saved_and_read_with_its_types(scene, write_table, rows, tmp_path):
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "figures")
    write_table(node, rows)
    storage = slicer.vtkMRMLTableStorageNode()
    storage.SetFileName(str(tmp_path / "figures.tsv"))
    assert storage.WriteData(node)
    lines = (tmp_path / "figures.tsv").read_text().splitlines()
    assert len(lines) == 10 and lines[1 + NINE.names.index("liver")].replace('"', "").split("\t")[1] == "2"


def test_rows_without_figures_are_refused(scene, write_table):
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "figures")
    with pytest.raises(SegMateError, match="'volume_ml'"):
        write_table(node, [{"organ": "liver"}])
