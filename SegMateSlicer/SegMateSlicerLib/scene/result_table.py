"""The figures of the organs as a table of the scene.

Takes rows as OrganStatistics.to_dict gives them, fills a vtkMRMLTableNode with typed columns that carry
title, unit and description.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import vtk
from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError


@dataclass(frozen=True)
class _Column:
    """name: as in the table; unit: "" for none; value: text or number of one row."""

    name: str
    title: str
    unit: str
    description: str
    is_text: bool
    value: Callable[[Mapping], str | float]

    def new_array(self):
        return vtk.vtkStringArray() if self.is_text else vtk.vtkDoubleArray()


def write_table(table_node, rows: Iterable[Mapping], kept: Collection[str] = ()) -> None:
    """Replace the content of the table node by one line per organ; its observers get one event.

    kept: names of organs whose lines stay where the rows have nothing of them.
    An absent organ has 0 ml and no HU: NaN, which numeric columns need for "nothing". Raises SegMateError for
    rows without the figures.
    """
    columns = _columns()
    lines = {organ: line for organ, line in _lines_of(table_node, columns).items() if organ in kept}
    try:
        lines.update({row["organ"]: [column.value(row) for column in columns] for row in rows})
    except KeyError as error:
        raise SegMateError(
            _("the statistics have no {name}, expected those of the worker").format(name=error)
        ) from None
    table = vtk.vtkTable()
    for number, column in enumerate(columns):
        table.AddColumn(_filled(column, [line[number] for line in lines.values()]))
    was_modifying = table_node.StartModify()
    try:
        for number in range(table_node.GetNumberOfColumns()):
            table_node.RemoveAllColumnProperties(table_node.GetColumnName(number))
        table_node.SetAndObserveTable(table)
        table_node.SetUseColumnTitleAsColumnHeader(True)
        table_node.SetUseFirstColumnAsRowHeader(False)
        for column in columns:
            table_node.SetColumnProperty(column.name, "type", "string" if column.is_text else "double")
            table_node.SetColumnTitle(column.name, column.title)
            table_node.SetColumnUnitLabel(column.name, column.unit)
            table_node.SetColumnDescription(column.name, column.description)
    finally:
        table_node.EndModify(was_modifying)


def _filled(column: _Column, values: Iterable):
    array = column.new_array()
    array.SetName(column.name)
    for value in values:
        array.InsertNextValue(value)
    return array


def _lines_of(table_node, columns: list[_Column]) -> dict[str, list]:
    """Values by organ of a table that write_table has filled; none for any other."""
    table = table_node.GetTable()
    arrays = [table.GetColumnByName(column.name) for column in columns] if table is not None else []
    expected = [column.new_array().GetClassName() for column in columns]
    if [array.GetClassName() if array is not None else None for array in arrays] != expected:
        return {}
    lines = [[array.GetValue(row) for array in arrays] for row in range(table.GetNumberOfRows())]
    return {line[0]: line for line in lines}


def _columns() -> list[_Column]:
    return [
        _Column("organ", _("Organ"), "", _("Name of the organ"), True, lambda row: row["organ"]),
        _Column("volume_ml", _("Volume"), "ml", _("Volume of all of its voxels"), False,
                lambda row: _number(row["volume_ml"])),
        _Column("mean_hu", _("Mean"), "HU", _("Mean of the CT in the organ"), False,
                lambda row: _number(row["mean_hu"])),
        _Column("truncated", _("Truncated"), "", _("Sides of the image that cut the organ off"), True,
                lambda row: ", ".join(row["borders"]) or _("no")),
    ]  # fmt: skip


def _number(value: float | None) -> float:
    """One decimal: a tenth of a millilitre or of an HU is finer than any CT."""
    return math.nan if value is None else round(float(value), 1)
