"""Many phantom CTs through the local batch and through Ray, whose workers are killed at random moments.

    python Testing/measure/soak.py FOLDER [--cases 200] [--kills 8] [--json FILE]

Parts, each in a process of its own: "single", every CT by itself, for the labels that all others must
have; "local", run_batch with every core; "ray", two workers of one core each (or --workers) and nothing that
goes wrong, for the rate; "killed", the same with `kill -9` of a random worker at random moments. Of each:
what is in the log of cases, labels that differ from the single run's, CTs per minute once the network is
open, and the slope of the resident memory over the second half of the cases.

Synthetic CTs and results stay in FOLDER. The exit code is 1 where a case is missing, done twice or different.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from SegMateCore import Predictor, Segmentation, Volume
from SegMateCore.atomic import atomic_write
from SegMateCore.batch import Choices, Outputs, run_batch
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.process_memory import resident_bytes
from SegMateCore.benchmark.this_machine import load_average, machine_facts
from SegMateCore.case_log import CaseLog
from SegMateCore.data.layouts import phantom_files
from SegMateCore.input_cases import find_cases
from SegMateCore.machine import cpu_count
from SegMateCore.opening import Opening
from SegMateCore.ray_batch import run_ray_batch
from SegMateCore.ray_cluster import Cluster

LOG = "cases.jsonl"
PARTS = ("single", "local", "ray", "killed")


def work_in(folder: str, part: str) -> list:
    """Cases with the place of their results; those of an earlier soak are removed."""
    out = Path(folder) / part
    shutil.rmtree(out, ignore_errors=True)
    return [(case, Outputs.in_folder(out, case)) for case in find_cases(Path(folder) / "cts")]


def single(folder: str, checkpoint: str) -> dict:
    """Every CT by itself, read, segmented and written by the plainest calls."""
    work = work_in(folder, "single")
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    started = time.monotonic()
    for case, outputs in work:
        predictor.predict(Volume.read(case.source)).write(outputs.segmentation)
    return {"seconds": time.monotonic() - started}


def local(folder: str, checkpoint: str) -> dict:
    """run_batch, with as many threads as there are cores."""
    work = work_in(folder, "local")
    predictor = Opening(checkpoint, "cpu").open()
    started, memory = time.monotonic(), []
    with CaseLog(Path(folder) / "local" / LOG) as log:
        for result in run_batch(predictor, work, Choices(), lambda case, outputs: False):
            log.add(result)
            memory.append(resident_bytes())
    return {"seconds": time.monotonic() - started, "memory_mb_per_100": slope(memory)}


def on_ray(folder: str, checkpoint: str, part: str, workers: int, kills: int, seed: int) -> dict:
    """run_ray_batch; `kills` workers are killed, each a random while after a random case has ended."""
    work = work_in(folder, part)
    cluster = Cluster("local", workers, max(1, cpu_count() // workers), gpus=0)
    draw = random.Random(seed)
    moments = set(draw.sample(range(1, max(2, len(work) - 1)), kills))
    opened: list[float] = []
    memory: dict[str, list[int]] = {}
    killed = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "cases" and not opened:
            opened.append(time.monotonic())

    started = time.monotonic()
    results = run_ray_batch(
        Opening(checkpoint, "cpu"), work, Choices(), lambda case, outputs: False, cluster, progress
    )
    with CaseLog(Path(folder) / part / LOG) as log:
        for number, result in enumerate(results, 1):
            log.add(result)
            process = int(result.worker.rpartition(":")[2])
            if psutil.pid_exists(process):
                memory.setdefault(result.worker, []).append(psutil.Process(process).memory_info().rss)
            if number in moments:
                time.sleep(draw.random())
                victim = draw.choice([name for name in memory if alive(name)])
                os.kill(int(victim.rpartition(":")[2]), signal.SIGKILL)
                killed.append(victim)
    ended = time.monotonic()
    slopes = [slope(values) for values in memory.values()]
    return {
        "seconds": ended - opened[0], "seconds_to_open": opened[0] - started, "kills": len(killed),
        "workers_seen": len(memory),
        "memory_mb_per_100": max((value for value in slopes if value is not None), default=None),
    }  # fmt: skip


def alive(worker: str) -> bool:
    """Whether that process is there and no zombie."""
    try:
        return psutil.Process(int(worker.rpartition(":")[2])).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def slope(values: list[int]) -> float | None:
    """MB per 100 cases over the second half; None of fewer than ten cases."""
    late = values[len(values) // 2 :]
    if len(late) < 10:
        return None
    return round(float(np.polyfit(range(len(late)), late, 1)[0]) * 100 / 1e6, 2)


def check(folder: Path, part: str, names: list[str]) -> dict:
    """What the log says, and how many results differ from the single ones."""
    lines = [json.loads(line) for line in (folder / part / LOG).read_text().splitlines()]
    done = Counter(line["case"] for line in lines if line["status"] == "done")
    written = sorted(path.name for path in (folder / part).iterdir() if path.name != LOG)
    different = []
    for name in names:
        path = folder / part / f"{name}.nii.gz"
        if not path.is_file():
            continue
        one, other = (Segmentation.read(place).labels for place in (path, folder / "single" / path.name))
        if not np.array_equal(one, other):
            different.append(name)
    return {
        "cases": len(names),
        "done_once": sum(done[name] == 1 for name in names),
        "failed": sorted({line["case"] for line in lines if line["status"] == "failed"}),
        "different": different,
        "missing": [name for name in names if f"{name}.nii.gz" not in written],
        "unfinished_files": sum(name.startswith(".") for name in written),
        "most_attempts": max(line["attempts"] for line in lines),
        "tried_again": sum(line["attempts"] > 1 for line in lines),
    }


def is_right(part: dict) -> bool:
    """Every case is there, done once, and has the single run's labels."""
    checked = part["checked"]
    return checked["done_once"] == checked["cases"] and not (
        checked["failed"] or checked["different"] or checked["missing"]
    )


def make_phantoms(folder: Path, count: int, shape: tuple[int, int, int], spacing_mm: float) -> None:
    """Those that are not there yet."""
    missing = [seed for seed in range(count) if not (folder / f"phantom_{seed:04d}" / "organs.json").exists()]
    phantom_files(folder, missing, spacing_mm=spacing_mm, shape=shape, field="abdomen")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--shape", type=int, nargs=3, default=[16, 56, 56], help="slices, rows, columns")
    parser.add_argument("--spacing", type=float, default=6.0, help="mm")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="others stay as they are")
    given = parser.parse_args()
    made_of = {
        "cases": given.cases, "shape": given.shape, "spacing_mm": given.spacing,
        "checkpoint": given.checkpoint, "workers": given.workers,
    }  # fmt: skip
    make_phantoms(given.folder / "cts", given.cases, tuple(given.shape), given.spacing)
    figures = earlier(given.json, made_of)
    for part in given.parts:
        print(f"{part} ...", flush=True)
        figures["parts"][part] = measured(part, given)
        print(json.dumps(figures["parts"][part]), flush=True)
        rates = {name: found["cases_per_minute"] for name, found in figures["parts"].items()}
        if {"ray", "local"} <= rates.keys():
            figures["ray_over_local"] = round(rates["ray"] / rates["local"], 3)
        if given.json:
            with atomic_write(given.json) as stream:
                stream.write((json.dumps(figures, indent=1) + "\n").encode())
    print(f"Ray over local: {figures.get('ray_over_local')}")
    return 0 if all(is_right(found) for name, found in figures["parts"].items() if name != "single") else 1


def earlier(path: Path | None, made_of: dict) -> dict:
    """The figures of an earlier run of the same, to which parts are added, else none yet."""
    if path is not None and path.is_file():
        found = json.loads(path.read_text())
        if {name: found[name] for name in made_of} == made_of:
            return found
    return {**made_of, "parts": {}}


def measured(part: str, given: argparse.Namespace) -> dict:
    """One part in a process of its own, checked."""
    load = load_average()
    words = {"folder": str(given.folder), "checkpoint": given.checkpoint}
    if part in ("ray", "killed"):
        kills = given.kills if part == "killed" else 0
        words |= {"part": part, "workers": given.workers, "kills": kills, "seed": given.seed}
    found = in_child(f"soak:{part if part in ('single', 'local') else 'on_ray'}", words)
    found["cases_per_minute"] = round(60 * given.cases / found["seconds"], 2)
    if part != "single":
        names = [case.name for case in find_cases(given.folder / "cts")]
        found["checked"] = check(given.folder, part, names)
    return {**found, "made": machine_facts(load)}


if __name__ == "__main__":
    sys.exit(main())
