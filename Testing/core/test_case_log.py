"""The log of cases: a line for each as it ends, whole after every crash, the last line of a case holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from SegMateCore.batch import DONE, FAILED, SKIPPED, CaseResult
from SegMateCore.case_log import FIELDS, CaseLog, read_case_log
from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import Case


def result(name: str, status: str, **facts) -> CaseResult:
    return CaseResult(Case(name, Path("x")), status, **facts)


def test_lines_are_there_as_they_are_added(tmp_path):
    path = tmp_path / "new" / "cases.jsonl"
    with CaseLog(path) as log:
        assert not path.exists()
        log.add(result("a/ä", DONE, seconds=1.23456, attempts=2, worker="node:7"))
        log.add(result("b", FAILED, error="bad"))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [tuple(line) for line in lines] == [FIELDS, FIELDS]
    assert lines[0] | {"time": ""} == {
        "case": "a/ä", "status": "done", "attempts": 2, "seconds": 1.235, "worker": "node:7", "error": "",
        "time": "",
    }  # fmt: skip
    assert lines[1]["error"] == "bad"


def test_a_torn_line_costs_only_itself(tmp_path):
    path = tmp_path / "cases.jsonl"
    with CaseLog(path) as log:
        log.add(result("a", DONE))
        log.add(result("b", DONE))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with CaseLog(path) as log:
            log.add(result("c", DONE))
        count = 2 if length >= len(whole) - 1 else 1 if length >= whole.index(b"\n") else 0
        assert list(read_case_log(path)) == ["a", "b"][:count] + ["c"]


def test_skipped_cases_that_have_a_line_get_no_other(tmp_path):
    path = tmp_path / "cases.jsonl"
    for status in (FAILED, DONE, SKIPPED, SKIPPED):
        with CaseLog(path) as log:
            log.add(result("a", status))
            log.add(result("b", SKIPPED))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["case"], line["status"]) for line in found] == [("a", FAILED), ("b", SKIPPED), ("a", DONE)]
    assert read_case_log(path)["a"]["status"] == DONE


def test_a_line_of_digits_is_no_entry(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text("1" * 5000 + "\n")
    with CaseLog(path) as log:
        log.add(result("a", DONE))
    assert list(read_case_log(path)) == ["a"]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader,\nthis is no log.\n")
    with pytest.raises(SegMateError, match="not a log of cases"):
        CaseLog(path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegMateError, match="cannot write"):
        CaseLog(tmp_path / "file" / "cases.jsonl").add(result("a", DONE))
