"""Pictures of a run: validation cases with truth above prediction, and the curves of loss, rate and Dice.

Takes what validation found and the lines of metrics.jsonl, gives PNG files. The slices shown depend on the
reference alone, so they are the same after every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from SegMateCore.atomic import atomic_write
from SegMateCore.organs import Organ, OrganSet
from SegMateCore.slice_picture import BACKGROUND, FAINT, TEXT, fitting, font_of, slice_picture
from SegMateCore.training.validation import Scored

SLICES = 4
PANEL_WIDTH_PX = 300
GAP_PX, HEAD_PX = 8, 34


def preview_png(scored: Scored, title: str) -> bytes:
    """Truth in the upper row, prediction in the lower one, on the same axial slices, seen from the feet."""
    canonical = scored.volume.canonical()
    rows = [
        scored.volume.with_voxels(part.labels).canonical().voxels for part in (scored.reference, scored.found)
    ]
    slices = _fixed_slices(rows[0])
    height_px = round(
        PANEL_WIDTH_PX
        * canonical.shape[1]
        * canonical.spacing_mm[1]
        / (canonical.shape[2] * canonical.spacing_mm[0])
    )
    width = len(slices) * (PANEL_WIDTH_PX + GAP_PX) + GAP_PX
    page = Image.new("RGB", (width, 2 * (height_px + HEAD_PX) + GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(page)
    organ_sets = (scored.reference.organs, scored.found.organs)
    for row, (labels, organs, what) in enumerate(zip(rows, organ_sets, ("truth", "prediction"))):
        top = row * (height_px + HEAD_PX)
        text = f"{title}: {what}" if row == 0 else what
        draw.text((GAP_PX, top + 8), fitting(text, font_of(18), width - 2 * GAP_PX), TEXT, font_of(18))
        for column, k in enumerate(slices):
            left = GAP_PX + column * (PANEL_WIDTH_PX + GAP_PX)
            # Radiological: the patient's left on the picture's right, the front on top.
            hu, plane = canonical.voxels[k][::-1, ::-1], labels[k][::-1, ::-1]
            page.paste(
                slice_picture(hu, plane, _same_colours(organs, organ_sets[1]), (PANEL_WIDTH_PX, height_px)),
                (left, top + HEAD_PX),
            )
            draw.text((left + 4, top + HEAD_PX + 4), f"slice {k}", FAINT, font_of(13))
    content = BytesIO()
    page.save(content, "PNG")
    return content.getvalue()


def draw_curves(lines: Sequence[dict], path: Path) -> None:
    """Loss, learning rate and Dice over the steps, from lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    logs = [line for line in lines if line["kind"] == "log"]
    epochs = [line for line in lines if line["kind"] == "epoch" and line["score"] is not None]
    figure = Figure(figsize=(9, 9), layout="constrained")
    loss, rate, dice = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 3))
    steps = [line["step"] for line in logs]
    for name in logs[-1]["terms"] if logs else ():
        loss.plot(steps, [line["terms"].get(name, np.nan) for line in logs], linewidth=0.8, label=name)
    loss.plot(steps, [line["loss"] for line in logs], color="black", label="loss")
    loss.set(ylabel="loss and its terms", yscale="log")
    rate.plot(steps, [line["rate"] for line in logs], color="black")
    rate.set(ylabel="learning rate")
    at = [line["step"] for line in epochs]
    for organ in epochs[-1]["dice"] if epochs else ():
        dice.plot(at, [line["dice"].get(organ, np.nan) for line in epochs], marker=".", label=organ)
    dice.plot(at, [line["score"] for line in epochs], color="black", linewidth=2, label="mean")
    dice.set(ylabel="validation Dice (3D)", xlabel="step", ylim=(0, 1))
    for axes in (loss, dice):
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    with atomic_write(path) as stream:
        stream.write(content.getvalue())


def _fixed_slices(labels: np.ndarray) -> list[int]:
    """Evenly spread over the slices that show any organ of the reference; over all where none does."""
    shown = np.flatnonzero(labels.any(axis=(1, 2)))
    if shown.size == 0:
        shown = np.arange(len(labels))
    places = (np.arange(SLICES) + 0.5) / SLICES * (shown.size - 1)
    return sorted({int(shown[round(place)]) for place in places})


def _same_colours(organs: OrganSet, colours: OrganSet) -> list[Organ]:
    """The organs of a table, in the colours that another table gives to organs of the same name."""
    by_name = {organ.name: organ for organ in colours}
    return [replace(organ, rgb=by_name.get(organ.name, organ).rgb) for organ in organs]
