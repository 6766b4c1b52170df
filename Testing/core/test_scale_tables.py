"""The tables of docs/scale.md: those that the published figures give, and arithmetic that can be checked."""

from __future__ import annotations

import sys

import pytest
from command import ROOT

sys.path.insert(0, str(ROOT / "Testing" / "measure"))
scale_figures = pytest.importorskip("scale_figures")


def test_the_document_has_the_tables_of_the_published_figures():
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    found = scale_figures.tables(*scale_figures.read_figures(), 0.05)
    assert scale_figures.with_tables(text, found) == text, "run scale_figures.py tables --write docs/scale.md"
    assert all(table in text for table in found.values())


def test_what_many_take_by_hand():
    """3.6 core-seconds: 100 core-hours for 100,000 CTs, 50 hours on 2 cores, 5 at 0.05 an hour."""
    figures = {
        "ct": {"shape": [10, 20, 30], "bytes": 50_000_000},
        "forms": {
            form: {
                "core_seconds": 3.6, "peak_mb": 1500,
                "bytes": {"labels": 20_000, "preview": 1500, "table": 700, "log": 200},
            }
            for form in ("nii.gz", "seg.nrrd")
        },
    }  # fmt: skip
    table = scale_figures.tables(figures, None, 0.05)["cts"]
    for row in (
        "| processor time | 3.6 core-seconds | 100 core-hours |",
        "| cost at 0.05 per core-hour | 0.00005 | 5 |",
        "| time on 2 cores | 1.800 s | 2.1 days |",
        "| time on 100 cores | 0.036 s | 1.0 hours |",
        "| CTs (30 x 20 x 10, .nii.gz) | 50.0 MB | 5.0 TB |",
        "| labels as .nii.gz | 20.0 kB | 2.0 GB |",
        "| table of statistics and log | 900 bytes | 90.0 MB |",
    ):
        assert row in table
