"""The pictures of the 3D Slicer extension: its panel before, during and after a run, and Slicer's views.

    python Testing/measure/slicer_pictures.py CT OUTPUT_FOLDER

The panel is the real module in the test host (Testing/slicer/host), the segmentation that of the bundled
checkpoint by the real worker, the views are drawn by Slicer's own displayable managers. Needs no screen.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PANEL_WIDTH = 440
# Such that nothing is squeezed; more opens at the end of a run.
PANEL_HEIGHTS = {"panel_before": 730, "panel_running": 780, "panel_done": 1110}
# Two of them are as high as the panel at the end of a run.
VIEW_SIZE = 555
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    host = start_host()
    from host.views import write_png

    volume = load_ct(arguments.ct)
    widget = host.open_panel(host.load_module(ROOT / "SegMateSlicer" / "SegMateSlicer.py"))
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    take_panel(host, widget, arguments.folder / "panel_before.png")
    run_and_watch(host, widget, arguments.folder)
    panel = take_panel(host, widget, arguments.folder / "panel_done.png")
    views = draw_views(host, volume)
    write_png(views, arguments.folder / "views_done.png")
    write_png(beside(panel, views), arguments.folder / "overview.png")
    host.reset()


if __name__ == "__main__":
    main()
