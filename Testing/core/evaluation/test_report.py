"""The report is one page that needs nothing else, escapes what it is given, and shows the worst."""

from __future__ import annotations

import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from label_folders import without, write_labels
from PIL import Image
from small_datasets import block_labels, write_case_folders

from SegMateCore.cli import main
from SegMateCore.evaluation.charts import Group, box_chart, nice_ticks, scatter_chart
from SegMateCore.evaluation.worst_cases import MOST_PER_CASE, worst_of

VOID = {"meta", "br", "img"}


class Tags(HTMLParser):
    """Checks that tags close in order, and gathers what a browser would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.counts = [], [], {}

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loads += [value for name, value in attributes if name in ("src", "href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """Of six cases with CTs, one with a name that is HTML's, one organ missed."""
    folder = tmp_path_factory.mktemp("report")
    write_case_folders(folder / "cases", 5)
    (folder / "cases/case_00").rename(folder / "cases/one &lt; two & co")
    for number, place in enumerate(sorted((folder / "cases").iterdir())):
        labels = block_labels(shift=number % 3)
        found = without(labels, "liver") if number == 2 else labels
        write_labels(folder / "found" / f"{place.name}.nii.gz", found)
    words = ["evaluate", folder / "cases", "--predictions", folder / "found", "-o", folder / "out"]
    assert main([*map(str, words), "--jobs", "0", "--quiet"]) == 0
    return (folder / "out/report.html").read_text(encoding="utf-8")


def test_it_is_whole_and_needs_nothing_else(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "script" not in tags.counts and "link" not in tags.counts
    assert tags.loads and all(value.startswith("data:image/jpeg;base64,") for value in tags.loads)
    assert "url(" not in page and "@import" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org)", page)
    assert "Research use only, not for diagnosis" in page


def test_names_are_escaped(page):
    assert "one &amp;lt; two &amp; co" in page and "two & co" not in page


def test_pictures_are_pictures(page):
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    assert 1 <= len(pictures) <= 6
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    # The first is the missed liver: its reference is outlined in yellow, nothing in blue.
    yellow = (colours[:, 0] > 180) & (colours[:, 1] > 170) & (colours[:, 2] < 130)
    blue = (colours[:, 2] > 180) & (colours[:, 0] < 90)
    assert yellow.sum() > 50 and blue.sum() == 0


def test_misses_are_told(page):
    assert ">missed<" in page and "1 x \u221e" in page and "HD95 \u221e mm" in page


def test_charts_are_well_formed_and_to_scale():
    group = Group(
        "liver", (200, 90, 70), tuple("abcdef"), (0.0, 0.2, 0.4, 0.6, 1.0, math.inf), (1, 2, 3, 4, 5, 6)
    )
    root = ElementTree.fromstring(box_chart([group], "Dice", 1.0))
    points = [float(node.get("cx")) for node in root.iter("circle")]
    assert len(points) == 5
    steps = np.diff(points)
    assert steps == pytest.approx([steps[0]] * 3 + [2 * steps[0]], abs=0.2)
    box = next(root.iter("rect"))
    # Quartiles of 0, 0.2, 0.4, 0.6, 1 are the second and the fourth of them.
    assert float(box.get("x")) == pytest.approx(points[1], abs=0.1)
    assert float(box.get("width")) == pytest.approx(points[3] - points[1], abs=0.2)
    sized = Group("liver", (200, 90, 70), tuple("abc"), (0.1, 0.2, 0.3), (1.0, 10.0, 100.0))
    root = ElementTree.fromstring(scatter_chart([sized], "ml", "Dice"))
    across = np.diff([float(node.get("cx")) for node in root.iter("circle")])
    assert across[0] == pytest.approx(across[1], abs=0.2)
    assert scatter_chart([Group("liver", (0, 0, 0), ("a",), (0.0,), (0.0,))], "ml", "Dice") == ""


def test_ticks_are_round_and_enclose():
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    ticks = nice_ticks(-3.2, 47)
    assert ticks[0] <= -3.2 and ticks[-1] >= 47 and 0 in ticks
    assert nice_ticks(5, 5)[0] < 5 < nice_ticks(5, 5)[-1]


def test_the_worst_come_first_and_not_all_from_one_case():
    figures = {"state": "found", "hd95_mm": 1.0}
    rows = [
        {"case": case, "organs": {organ: {**figures, "dice": value} for organ, value in zip("xyz", values)}}
        for case, values in {"bad": (0.1, 0.2, 0.3), "good": (0.9, 0.8, 1.0)}.items()
    ]
    rows[1]["organs"]["z"] = {"state": "absent", "dice": None, "hd95_mm": None}
    worst = worst_of(rows)
    assert [(each.case, each.organ) for each in worst] == [
        ("bad", "x"),
        ("bad", "y"),
        ("good", "y"),
        ("good", "x"),
    ]
    assert MOST_PER_CASE == 2
