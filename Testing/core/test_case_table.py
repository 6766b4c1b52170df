"""The table of a folder of cases: kept over runs, whole at any moment."""

from __future__ import annotations

import pytest

from SegMateCore.case_table import CaseTable
from SegMateCore.errors import SegMateError
from SegMateCore.statistics import OrganStatistics

LIVER = OrganStatistics("liver", 5, 1000, 27.0, 60.0, 20.0, (30.0, 20.0, 10.0), ())


def test_rows_of_an_earlier_run_stay_and_are_replaced_by_case(tmp_path):
    table = CaseTable.read(tmp_path / "t.csv")
    table.replace("b", [LIVER])
    table.write()
    # A blank line is what editors leave at the end.
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text() + "\n")
    table = CaseTable.read(tmp_path / "t.csv")
    assert "b" in table and "a" not in table
    table.replace("a", [LIVER, LIVER])
    table.replace("b", [LIVER])
    table.write()
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["case", "a", "a", "b"]


def test_names_of_files_that_are_no_text(tmp_path):
    """As Latin-1 on Linux; a table that does not find its case again would have it done for ever."""
    name = b"M\xfcller".decode(errors="surrogateescape")
    table = CaseTable.read(tmp_path / "t.csv")
    table.replace(name, [LIVER])
    table.write()
    assert b"\nM\xfcller," in (tmp_path / "t.csv").read_bytes()
    assert name in CaseTable.read(tmp_path / "t.csv")


@pytest.mark.parametrize("content", [b"", b"organ,label\n", b"\xff\xfe\x00"])
def test_another_file_is_not_taken_for_a_table(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(SegMateError, match="t.csv"):
        CaseTable.read(tmp_path / "t.csv")
