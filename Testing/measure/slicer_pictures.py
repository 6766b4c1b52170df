"""The pictures of the 3D Slicer extension: its panel before, during and after a run, and Slicer's views; the
dialog of the public models, and the panel with one of them.

    python Testing/measure/slicer_pictures.py CT OUTPUT_FOLDER

The panel is the real module in the test host (Testing/slicer/host), the segmentation that of the bundled
checkpoint by the real worker, the views are drawn by Slicer's own displayable managers. The public model is a
stand-in with the real one's description and none of its weights. Needs no screen.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PANEL_WIDTH = 440
# Such that nothing is squeezed; more opens at the end of a run.
PANEL_HEIGHTS = {"panel_before": 780, "panel_running": 830, "panel_done": 1170, "panel_organ_set": 750}
PUBLIC_MODEL = "totalsegmentator_3mm"
# Two of them are as high as the panel at the end of a run.
VIEW_SIZE = 585
WINDOW_HU, LEVEL_HU = 400, 40
LONGEST_RUN_S = 300


def start_host():
    """The running test host."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path[:0] = [str(ROOT / "Testing" / "slicer"), str(ROOT / "SegMateSlicer")]
    import host

    return host.start()


def load_ct(path: Path):
    """The CT as a volume node with a soft-tissue window."""
    import slicer

    volume = slicer.util.loadVolume(str(path))
    volume.SetName("CT chest")
    display = volume.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(WINDOW_HU, LEVEL_HU)
    return volume


def take_panel(host, widget, path: Path) -> np.ndarray:
    """Save the panel; gives its pixels (rows, columns, 3) uint8."""
    from PIL import Image

    widget.parent.resize(PANEL_WIDTH, PANEL_HEIGHTS[path.stem])
    host.process_events(0.1)
    widget.parent.grab().save(str(path))
    return np.asarray(Image.open(path).convert("RGB"))


def run_and_watch(host, widget, folder: Path) -> None:
    """Press Segment, take a picture in the middle of the run, wait for the end."""
    widget.ui.segmentButton.click()
    until = time.monotonic() + LONGEST_RUN_S
    taken = False
    while widget.logic.activeRun is not None and time.monotonic() < until:
        host.process_events(0.01)
        bar = widget.ui.progressBar
        if not taken and bar.value > 0.5 * bar.maximum:
            take_panel(host, widget, folder / "panel_running.png")
            taken = True
    if not taken or host.displayed:
        raise RuntimeError(f"the run was not seen in progress, or failed: {host.displayed}")


def write_stand_in(models: Path) -> None:
    """A file that describes itself as the public model, so that the panel shows what it shows of that one."""
    import json
    from importlib import resources

    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.class_table import organ_sets_of

    table = resources.files("SegMateCore").joinpath("resources/classes.json").read_text(encoding="utf-8")
    rows = [row for row in json.loads(table)["classes"] if "v2" in row["numbers"]]
    rows.sort(key=lambda row: row["numbers"]["v2"])
    classes = ["background", *(row["class"] for row in rows)]
    sets = {name: choice.to_dict() for name, choice in organ_sets_of(classes).items()}
    part = {
        "strategy": "patches",
        "model": {"name": "nnunet_plain", "options": {"out_channels": len(classes)}},
        "preprocessing": {"normalisation": {"kind": "zscore"}, "spacing_mm": [3, 3, 3]},
        "patches": {"size": [128, 128, 128]},
        "activation": "softmax",
        "classes": classes,
        "grouping": sets["nine"]["grouping"][0],
    }
    document = {
        "name": "Dataset297_TotalSegmentator_total_3mm_1559subj",
        "description": "Imported from nnU-Net v2 (Isensee et al., Nature Methods 18, 2021).",
        "organs": sets["nine"]["organs"],
        "organ_sets": sets,
        "parts": [part],
        "licences": [{"what": "weights", "licence": "Apache-2.0"}],
    }
    Checkpoint.write(models / f"{PUBLIC_MODEL}.safetensors", document, [{"none": np.zeros(1, np.float32)}])


def take_public_models(host, widget, folder: Path) -> None:
    """Pictures of the dialog that downloads models, and of the panel with one and its organ sets."""
    widget.ui.downloadModelButton.click()
    dialog = widget.panel._checkpoint._dialog
    dialog.models.setCurrentIndex(list(dialog._entries).index(PUBLIC_MODEL))
    host.process_events(0.2)
    dialog.dialog.grab().save(str(folder / "download_dialog.png"))
    dialog.close()
    models = Path(os.environ["SEGMATE_MODELS"])
    models.mkdir(parents=True)
    write_stand_in(models)
    before = widget._parameterNode.checkpoint
    widget._parameterNode.checkpoint = PUBLIC_MODEL
    take_panel(host, widget, folder / "panel_organ_set.png")
    widget._parameterNode.checkpoint = before


def draw_views(host, volume) -> np.ndarray:
    """Axial and 3D view above, sagittal and coronal below."""
    from host.views import Look, four_views

    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    centre_ras = bounds.reshape(3, 2).mean(axis=1)
    with four_views(host.world, VIEW_SIZE) as views:
        # Through the kidneys' upper poles and the liver, where most organs are.
        through = centre_ras + (0, 0, -0.28 * (bounds[5] - bounds[4]))
        return views.draw(volume, through, Look(azimuth=15, elevation=8))


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures side by side on white, both at the top."""
    height = max(len(left), len(right))
    padded = [
        np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255)
        for picture in (left, right)
    ]
    return np.hstack(padded)


def take_pictures(ct: Path, folder: Path) -> None:
    host = start_host()
    from host.views import write_png

    volume = load_ct(ct)
    widget = host.open_panel(host.load_module(ROOT / "SegMateSlicer" / "SegMateSlicer.py"))
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    take_panel(host, widget, folder / "panel_before.png")
    take_public_models(host, widget, folder)
    run_and_watch(host, widget, folder)
    panel = take_panel(host, widget, folder / "panel_done.png")
    views = draw_views(host, volume)
    write_png(views, folder / "views_done.png")
    write_png(beside(panel, views), folder / "overview.png")
    host.reset()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as models:
        # Not those that somebody has downloaded here.
        os.environ["SEGMATE_MODELS"] = str(Path(models) / "models")
        take_pictures(arguments.ct, arguments.folder)


if __name__ == "__main__":
    main()
