"""The tables of the report as HTML: overlap, surfaces and volumes, slices, every case, what could not be
scored.

Takes the summary and rows of Results, gives HTML texts with everything escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from SegMateCore.evaluation.metrics import ABSENT, FALSE_ALARM, MISSED
from SegMateCore.evaluation.result_files import Results
from SegMateCore.evaluation.summary import ALL_ORGANS, organ_order, totals


class _Html(str):
    """Text that is HTML already."""


COUNTS = {"Cases": "cases", "Absent": ABSENT, "Missed": MISSED, "False alarms": FALSE_ALARM}
# Metric -> (heading, digits of the mean, digits of its interval)
OVERLAPS = {
    "dice": ("Dice", 4, 3), "iou": ("IoU", 3, 3), "precision": ("Precision", 3, 3),
    "recall": ("Recall", 3, 3),
}  # fmt: skip
DISTANCES = {
    "nsd_1mm": ("NSD 1 mm", 3, 3), "nsd_2mm": ("NSD 2 mm", 3, 3), "nsd_3mm": ("NSD 3 mm", 3, 3),
    "hd95_mm": ("HD95, mm", 2, 2), "asd_mm": ("ASD, mm", 2, 2),
    "volume_error_ml": ("Volume error, ml", 1, 1), "volume_error_percent": ("Volume error, %", 1, 1),
}  # fmt: skip


def overlap_table(summary: dict) -> str:
    """Counts, then means over n cases with their intervals, and the median Dice."""
    header = ["Organ", *COUNTS, "n", *(title for title, _, _ in OVERLAPS.values()), "Median Dice"]
    rows = []
    for organ, entry in summary["organs"].items():
        dice = entry["metrics"]["dice"]
        counts = [entry[key] for key in COUNTS.values()]
        median = figure_text(dice["median"], 4)
        rows.append([organ, *counts, dice["n"], *_means(entry["metrics"], OVERLAPS), median])
    sums = totals(summary)
    counts = [sums.get(key, "") for key in COUNTS.values()]
    total = [ALL_ORGANS, *counts, "", *_means(summary[ALL_ORGANS], OVERLAPS), ""]
    return html_table(header, rows, total)


def distances_table(summary: dict) -> str:
    """Means with their intervals; HD95 and ASD over the n cases in which they are finite."""
    header = ["Organ", "n (distances)", *(title for title, _, _ in DISTANCES.values())]
    rows = [
        [organ, entry["metrics"]["hd95_mm"]["n"], *_means(entry["metrics"], DISTANCES)]
        for organ, entry in summary["organs"].items()
    ]
    overall = summary[ALL_ORGANS]
    n = f"{overall['hd95_mm']['n']} of {overall['hd95_mm']['of']} organs"
    return html_table(header, rows, [ALL_ORGANS, n, *_means(overall, DISTANCES)])


def _means(metrics: dict, columns: dict[str, tuple[str, int, int]]) -> list[_Html]:
    return [_mean(metrics[key], *digits) for key, (_, *digits) in columns.items()]


def _mean(figures: dict, digits: int, interval_digits: int) -> _Html:
    """A mean with its interval below it."""
    text = figure_text(figures["mean"], digits)
    if figures["low"] is None:
        return _Html(text)
    low, high = (figure_text(figures[key], interval_digits) for key in ("low", "high"))
    return _Html(f"{text}<br><small>{low} to {high}</small>")


def slices_table(summary: dict) -> str:
    """Accuracy and AUC of an organ's presence in axial slices."""
    rows = []
    for organ, entry in summary["organs"].items():
        slices = entry["slices"]
        share = f"{100 * slices['present'] / slices['slices']:.1f}"
        rows.append(
            [
                organ,
                slices["slices"],
                share,
                figure_text(slices["accuracy"], 4),
                figure_text(slices["auc"], 4),
            ]
        )
    return html_table(["Organ", "Slices", "% with it", "Accuracy", "AUC"], rows)


def cases_table(results: Results) -> str:
    """Dice of every case and organ, redder the lower; misses and false alarms in words."""
    organs = organ_order(results.cases)
    lines = []
    for row in results.cases:
        cells = [f"<td>{escape(row['case'])}</td>"]
        for organ in organs:
            cells.append(_case_cell(row["organs"].get(organ)))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(text)}</th>" for text in ("Case", *organs))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _case_cell(figures: dict | None) -> str:
    if figures is None:
        return '<td class="faint" title="not annotated, or not among the predicted organs">-</td>'
    if figures["state"] == ABSENT:
        return '<td class="faint">absent</td>'
    text = figures["state"] if figures["state"] in (MISSED, FALSE_ALARM) else f"{figures['dice']:.3f}"
    return f'<td style="background:rgba(214,69,65,{min(0.75, 1.2 * (1 - figures["dice"])):.2f})">{text}</td>'


def failures_table(failed: Sequence[tuple[str, str]]) -> str:
    """Case and reason."""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="text">{escape(why)}</td></tr>' for name, why in failed
    )
    return f'<div class="wide"><table><tr><th>Case</th><th>Reason</th></tr>{rows}</table></div>'


def html_table(header: Sequence[str], rows: Sequence[Sequence], total: Sequence | None = None) -> str:
    """Rows under a header, `total` set apart below them."""
    lines = ["<tr>" + "".join(f"<th>{escape(text)}</th>" for text in header) + "</tr>"]
    for row in [*rows, *([] if total is None else [total])]:
        mark = ' class="total"' if row is total else ""
        lines.append(f"<tr{mark}>" + "".join(map(_cell, row)) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _cell(content: object) -> str:
    return f"<td>{content if isinstance(content, _Html) else escape(str(content))}</td>"


def figure_text(value: float | str | None, digits: int) -> str:
    """A number with so many digits; infinity and nothing as signs."""
    if value is None:
        return "\u2013"
    return "\u221e" if float(value) == float("inf") else f"{_rounded(value, digits):.{digits}f}"


def _rounded(value: float | str, digits: int) -> float:
    """Without the sign of a zero that was less than nothing."""
    return round(float(value), digits) + 0.0
