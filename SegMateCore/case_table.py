"""The figures of many cases in one CSV file, with a first column for the case, kept up to date case by case.

Takes OrganStatistics per case, gives a file that is whole at any moment; rows of cases that were finished
in an earlier run are read from it and stay.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.statistics import CSV_COLUMNS, OrganStatistics, csv_lines

COLUMNS = ("case", *CSV_COLUMNS)
# Names of files, which the cases have theirs from, need not be text on every system.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}
# A table of an older version has no provenance.
OLD_COLUMNS = COLUMNS[:-1]


class CaseTable:
    """Rows by case. path: the file, which is only made by `write`."""

    def __init__(self, path: Path, rows: dict[str, list[list[str]]]):
        self.path = path
        self._rows = rows
        self._next_write_s = 0.0

    @classmethod
    def read(cls, path: Path) -> CaseTable:
        """The table in `path`, empty where there is no such file. Raises SegMateError for another table."""
        if not path.exists():
            return cls(path, {})
        try:
            with open(path, newline="", **ENCODING) as stream:
                lines = [line for line in csv.reader(stream) if line]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SegMateError(f"cannot read the statistics in {path}: {error}") from error
        if not lines or tuple(lines[0]) not in (COLUMNS, OLD_COLUMNS):
            raise SegMateError(
                f"{path} is not a table of cases from an earlier run: give another name, or remove it"
            )
        rows: dict[str, list[list[str]]] = {}
        for line in lines[1:]:
            cells = line if lines[0][-1] == COLUMNS[-1] else [*line, ""]
            rows.setdefault(line[0], []).append(cells)
        return cls(path, rows)

    def __contains__(self, case: str) -> bool:
        return case in self._rows

    def replace(
        self, case: str, statistics: Sequence[OrganStatistics], provenance: Mapping | None = None
    ) -> None:
        """Put the figures of a case in the place of those that it may have. provenance: of its labels."""
        self._rows[case] = csv_lines(statistics, provenance or {}, (case,))

    def write_when_due(self) -> None:
        """As `write`, but no more than a twentieth of the time: a table of 100,000 cases takes seconds.

        A case whose rows did not come that far is not finished: the next run does it again.
        """
        began = time.monotonic()
        if began >= self._next_write_s:
            self.write()
            ended = time.monotonic()
            self._next_write_s = ended + 19 * (ended - began)

    def write(self) -> None:
        """Write all rows, sorted by case, whole or not at all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for case in sorted(self._rows):
            writer.writerows(self._rows[case])
        with atomic_write(self.path) as stream:
            stream.write(text.getvalue().encode(**ENCODING))
