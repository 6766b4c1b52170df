"""The report of an evaluation: one HTML file that holds everything, for any browser, without a network.

Takes Results and the CaseTasks behind them, gives report.html: tables, charts as SVG, the worst cases as
pictures, where the figures come from. It has no scripts, follows a dark or light desktop, and can be
printed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.data.datasets.organ_names import known_organs
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.case_scores import CaseTask
from SegMateCore.evaluation.charts import Group, box_chart, scatter_chart
from SegMateCore.evaluation.metrics import METRICS
from SegMateCore.evaluation.report_tables import (
    cases_table,
    distances_table,
    failures_table,
    figure_text,
    overlap_table,
    slices_table,
)
from SegMateCore.evaluation.result_files import Results
from SegMateCore.evaluation.worst_cases import FOUND_RGB, REFERENCE_RGB, Worst, picture, worst_of
from SegMateCore.notices import DEMONSTRATION, RESEARCH_ONLY

REPORT_NAME = "report.html"
# Metric -> a value that its axis must show: the best one.
CHARTED = {"dice": 1.0, "nsd_2mm": 1.0, "hd95_mm": 0.0, "volume_error_percent": 0.0}
_TITLES = {metric.key: metric.label for metric in METRICS}
_UNKNOWN_RGB = (140, 140, 140)
_JPEG_QUALITY = 88
MOST_CASES_OPEN = 50

METHOD = """All figures are 3D, in millimetres, on the reference's own grid, over annotated organs only. Dice,
IoU, precision and recall count voxels. Surface Dice (NSD), HD95 and the average surface distance (ASD) weigh
surfaces by area as google-deepmind/surface-distance does; HD95 is the larger one of the two directed 95th
percentiles, ASD the mean of the two directed averages. Volume error is prediction minus reference. An organ
that is in neither is absent and not averaged; one that is in the reference alone is missed, in the prediction
alone a false alarm: both count as 0 in overlaps and surface Dice, and are counted beside the mean of
distances, where they are infinite."""


def write_report(
    results: Results, tasks: Mapping[str, CaseTask], folder: Path, cancelled: IsCancelled = None
) -> None:
    """Write FOLDER/report.html. tasks: by case name, for the pictures. Raises SegMateError, Cancelled."""
    text = report_html(results, tasks, cancelled)
    with atomic_write(folder / REPORT_NAME) as stream:
        # Names of files need not be text.
        stream.write(text.encode("utf-8", "backslashreplace"))


def report_html(results: Results, tasks: Mapping[str, CaseTask], cancelled: IsCancelled = None) -> str:
    """The text of the page."""
    style = resources.files("SegMateCore").joinpath("resources/report.css").read_text(encoding="utf-8")
    title = _title(results)
    interval = results.head["bootstrap"]
    sections = [
        _header(results),
        _section("Overlap", overlap_table(results.summary)),
        _section("Surfaces and volumes", distances_table(results.summary)),
        f'<p class="faint">Small: {100 * interval["level"]:g} % intervals of the mean, bootstrap over'
        f" patients, {interval['samples']} samples, seed {interval['seed']}.</p>",
        _section("Every case", _charts(results.cases)),
        _section("Size against Dice", _scatter(results.cases)),
        _section("Where it went worst", _worst(results.cases, tasks, cancelled)),
        _section("Is the organ in this slice?", slices_table(results.summary)),
        _section("Cases", _cases(results)),
        _section("Not scored", failures_table(results.failed)) if results.failed else "",
        _section("How it was measured", f"<p>{escape(METHOD)}</p>"),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _title(results: Results) -> str:
    return f"{results.name} against {results.head['references']}"


def _header(results: Results) -> str:
    head, checkpoint = results.head, results.head["checkpoint"]
    facts = {"References": head["references"], "Scored": f"{len(results.cases)} cases"}
    if results.failed:
        facts["Scored"] += f", {len(results.failed)} not"
    if checkpoint is None:
        facts["Predictions"] = head["predictions"]
    else:
        facts |= {
            "Checkpoint": checkpoint["name"],
            "Weights": checkpoint["weights_sha256"],
            "Run on": f"{checkpoint['engine']}, {checkpoint['device']}, {checkpoint['precision']}",
        }
        if checkpoint["description"]:
            facts["About it"] = checkpoint["description"]
    facts["Labels"] = "several organs per voxel" if head["mode"] == "multilabel" else "one organ per voxel"
    if head["resampled"]:
        facts["Grids"] = "predictions on another grid were resampled (nearest voxel)"
    if head["notes"]:
        facts["Notes"] = "; ".join(head["notes"])
    facts["Made by"] = f"{head['software']}, {head['date']}"
    notice = RESEARCH_ONLY.capitalize()
    if head["demonstration"]:
        notice += f". {DEMONSTRATION}"
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in facts.items())
    if checkpoint is not None:
        rows += f"<dt>Licences</dt><dd>{_licences(checkpoint['licences'])}</dd>"
    return f'<h1>{escape(_title(results))}</h1><p class="notice">{escape(notice)}.</p><dl>{rows}</dl>'


def _licences(entries: Sequence[dict]) -> str:
    """Of the weights and all data, folded away: they can be many."""
    items = "".join(f"<li>{escape(entry['what'])}: {escape(entry['licence'])}</li>" for entry in entries)
    return (
        f"<details><summary>{len(entries)} recorded</summary><ul>{items}</ul></details>"
        if entries
        else "none"
    )


def _groups(cases: Sequence[dict], metric: str) -> list[Group]:
    """The points of each organ that has any."""
    points: dict[str, list[tuple[str, float, float]]] = {}
    for row in cases:
        for organ, figures in row["organs"].items():
            if figures[metric] is not None:
                point = (row["case"], float(figures[metric]), figures["reference_ml"])
                points.setdefault(organ, []).append(point)
    colours = {organ.name: organ.rgb for organ in known_organs()}
    order = {name: place for place, name in enumerate(colours)}
    return [
        Group(organ, colours.get(organ, _UNKNOWN_RGB), *zip(*points[organ]))
        for organ in sorted(points, key=lambda name: (order.get(name, len(order)), name))
    ]


def _charts(cases: Sequence[dict]) -> str:
    figures = []
    for metric, best in CHARTED.items():
        groups = _groups(cases, metric)
        if groups:
            title = _TITLES[metric]
            chart = box_chart(groups, title, best)
            figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>'


def _scatter(cases: Sequence[dict]) -> str:
    groups = _groups(cases, "dice")
    keys = "".join(_key(group.rgb, group.name) for group in groups)
    chart = scatter_chart(groups, "Size in the reference (ml)", "Dice")
    return f'<figure class="single">{chart}<figcaption>{keys}</figcaption></figure>'


def _cases(results: Results) -> str:
    """Long tables are folded away."""
    state = " open" if len(results.cases) <= MOST_CASES_OPEN else ""
    return f"<details{state}><summary>Dice of every case</summary>{cases_table(results)}</details>"


def _key(rgb: tuple[int, int, int], name: str) -> str:
    """A patch of colour and what it stands for."""
    return f'<span class="key"><i style="background:rgb{tuple(rgb)}"></i>{escape(name)}</span>'


def _worst(cases: Sequence[dict], tasks: Mapping[str, CaseTask], cancelled: IsCancelled) -> str:
    keys = _key(REFERENCE_RGB, "reference") + _key(FOUND_RGB, "prediction")
    figures = []
    for worst in worst_of(cases):
        stop_if(cancelled)
        figures.append(_worst_figure(worst, tasks))
    views = "Axial from the feet, coronal from the front; the slices where the two differ most. "
    return f'<p class="faint">{views}{keys}</p><div class="worst">{"".join(figures)}</div>'


def _worst_figure(worst: Worst, tasks: Mapping[str, CaseTask]) -> str:
    figures = worst.figures
    caption = (
        f"<b>{escape(worst.case)}, {escape(worst.organ)}</b>: {figures['state']}, Dice"
        f" {figure_text(figures['dice'], 3)}, HD95 {figure_text(figures['hd95_mm'], 1)} mm,"
        f" {figures['found_ml']:.1f} of {figures['reference_ml']:.1f} ml"
    )
    try:
        image = picture(tasks[worst.case], worst.organ)
    except SegMateError as error:
        return f"<figure><figcaption>{caption}. No picture: {escape(str(error))}</figcaption></figure>"
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    text = escape(f"{worst.organ} of {worst.case}, outlines of reference and prediction", quote=True)
    return (
        f'<figure><img alt="{text}" width="{image.width}" height="{image.height}"'
        f' src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
