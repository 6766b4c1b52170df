"""Does Slicer's window stay alive during a run, and what does everything but the network cost?

    python Testing/measure/slicer_responsiveness.py [--runs 6] [--json FILE]

Clicks Segment in the panel (the real module in the test host, the real worker, the bundled checkpoint) on a
512x512x300 phantom with Show 3D on, and records the gaps of the event loop from click to result. The first
run starts the worker, the others find it warm; medians are of the warm ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
SHAPE = (300, 512, 512)
LONGEST_RUN_S = 300


def click_and_watch(host, widget) -> dict:
    """Figures of one run, seconds."""
    from event_loop_gaps import EventLoopGaps, overhead_s

    gaps = EventLoopGaps()
    clicked = time.perf_counter()
    widget.ui.segmentButton.click()
    run = widget.logic.activeRun
    while widget.logic.activeRun is not None and time.perf_counter() - clicked < LONGEST_RUN_S:
        host.app.processEvents()
        time.sleep(0.0005)
    elapsed_s = time.perf_counter() - clicked
    p99_s, longest_s = gaps.stop()
    run.result()  # raises what it failed with
    figures = {
        "from_click_to_result": elapsed_s,
        "before_the_worker_begins": run.seconds["before"],
        "network": run.seconds["segment"],
        "prepare_and_clean_up": run.seconds["prepare"] + run.seconds.get("clean up", 0.0),
        "everything_else": overhead_s(elapsed_s, run.seconds),
        "gap_p99": p99_s,
        "gap_longest": longest_s,
    }
    # Each run into a new segmentation; old ones would only fill the memory.
    widget.logic.getParameterNode().outputSegmentation = None
    host.scene.RemoveNode(run.segmentationNode)
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=6, help="at least 2 (default %(default)s)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path[:0] = [str(ROOT / "Testing" / "slicer"), str(ROOT / "SegMateSlicer")]
    import host
    import slicer
    from event_loop_gaps import enlarged_phantom

    running = host.start()
    volume = slicer.util.addVolumeFromArray(*enlarged_phantom(SHAPE), "CT")
    widget = running.open_panel(running.load_module(ROOT / "SegMateSlicer" / "SegMateSlicer.py"))
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    widget.logic.getParameterNode().show3d = True
    runs = []
    for _ in range(arguments.runs):
        runs.append(click_and_watch(running, widget))
        print(json.dumps(runs[-1]), flush=True)
    warm = runs[1:]
    report = {
        "command": "python Testing/measure/slicer_responsiveness.py",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "shape": SHAPE,
        "unit": "s",
        "first": runs[0],
        "warm_median": {name: round(median(run[name] for run in warm), 3) for name in warm[0]},
        "warm_largest": {name: max(run[name] for run in warm) for name in warm[0]},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    running.reset()


if __name__ == "__main__":
    main()
