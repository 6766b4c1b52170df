"""The picture of latency against size: the front is right, and no two names overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.benchmark.pareto_plot import Point, ValueAxis, draw_pareto, pareto_front, shortened, spread

POINTS = [Point("a", 10, 5), Point("b", 20, 1), Point("c", 20, 5), Point("d", 5, 9), Point("twin", 10, 5)]


def test_the_front():
    assert pareto_front(POINTS, more_is_better=False) == [True, True, False, True, True]
    assert pareto_front(POINTS, more_is_better=True) == [False, False, False, True, False]


heights = st.lists(st.floats(0, 100), min_size=1, max_size=30)


@given(heights)
def test_spread_heights_lie_apart_inside_and_in_order(values):
    gap = 2.0
    placed = spread(values, gap, 0, 100)
    assert placed.min() >= -1e-9 and placed.max() <= 100 + 1e-9
    assert (np.diff(np.sort(placed)) >= gap - 1e-6).all()
    assert (np.diff(placed[np.argsort(values, kind="stable")]) > 0).all()


def test_spread_moves_no_more_than_needed():
    assert spread([10, 50, 90], 5, 0, 100) == pytest.approx([10, 50, 90])
    assert spread([50, 50], 10, 0, 100) == pytest.approx([45, 55])
    assert spread([0, 0, 0], 10, 0, 100) == pytest.approx([0, 10, 20])
    assert spread([1, 2, 3], 10, 0, 10) == pytest.approx([0, 5, 10])  # too many: evenly


def test_long_names_keep_both_ends():
    one, other = (f"segmate_fastvit (liver_{letter}_2026_fold0_checkpoint_{letter})" for letter in "AB")
    assert shortened(one) != shortened(other) and len(shortened(one)) == 42
    assert shortened(one).startswith("segmate_fastvit (l") and shortened(one).endswith("checkpoint_A)")
    assert shortened("short") == "short"


def test_no_text_is_mathematics_and_titles_end_in_the_picture(drawn, tmp_path):
    title = "; ".join(["256 x 256, 1 a call", *["onnxruntime 1.31.1, int8 on cpu"] * 4, r"cost $\foo$"])
    points = [Point(r"cost $\foo$", 1, 2), Point("b", 2, 1)]
    draw_pareto(points, ValueAxis("parameters (millions)"), title, tmp_path / "p.png")
    (figure,) = drawn
    plot, names = figure.axes
    # A search, since axes keep the title that is set flush left to themselves.
    texts = [*plot.findobj(match=pytest.importorskip("matplotlib.text").Text), *names.texts]
    assert any("256 x 256" in text.get_text() for text in texts)
    assert max(text.get_window_extent().x1 for text in texts if text.get_text()) <= figure.bbox.x1


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are made."""
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = []

    class Kept(figure_module.Figure):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            figures.append(self)

    monkeypatch.setattr(figure_module, "Figure", Kept)
    return figures


def test_names_do_not_overlap(drawn, tmp_path):
    points = [Point(f"network_with_a_long_name_{i}", 40 + i % 3, 12 + 0.01 * i) for i in range(24)]
    draw_pareto(points, ValueAxis("parameters (millions)"), "a title", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
    (figure,) = drawn
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert len(boxes) == 24
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 and box.y0 >= 0
