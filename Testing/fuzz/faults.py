"""Kill commands at random moments, fill their disk, change their input while they read, and run them again.

    python Testing/fuzz/faults.py --rounds 20 --seed 1 --out faults.json

Of each command one undisturbed run says what its output is. Then, round after round, the same command meets a
fault; every visible file that it leaves must be whole (be read, and equal to the undisturbed one's), and the
same command once more must end well with all of them. Hidden `.NAME.*.partial` files, which a killed
process cannot remove, are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[1] / "core"))
sys.path += [str(Path(__file__).parents[1] / "core" / name) for name in ("training", "evaluation")]

from fault_scenes import SCENES, Scene

FAULTS = ("kill", "full disk", "changing input")
SECONDS = 300.0


class Broken(Exception):
    """What must not happen."""


def environment() -> dict[str, str]:
    paths = os.pathsep.join(sys.path[:1] + [entry for entry in sys.path if "Testing" in entry])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def started(words: list[str], file_bytes: int | None = None) -> subprocess.Popen:
    """The command as a group of processes of its own; file_bytes: what any of its files may have at most."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.Popen(
        words, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, preexec_fn=None if file_bytes is None else limit,
    )  # fmt: skip


def ended(process: subprocess.Popen, what: str) -> tuple[int, str]:
    try:
        error = process.communicate(timeout=SECONDS)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise Broken(f"{what}: it does not end") from None
    if "Traceback" in error:
        raise Broken(f"{what}: {error[-1500:]}")
    return process.returncode, error


def in_order(
    scene: Scene, out: Path, whole: dict[str, str], what: str, interim: tuple[str, ...] = ()
) -> None:
    """Every visible file is one of the undisturbed run's, whole; those of `interim` need only be whole."""
    try:
        found = scene.contents(out)
    except Exception as error:
        raise Broken(f"{what} leaves a damaged file: {error}") from error
    for name, content in found.items():
        if whole.get(name) != content and name not in interim:
            raise Broken(f"{what} leaves {name}, which is not that of an undisturbed run")


def one_round(scene: Scene, place: Path, fault: str, whole: dict[str, str], seconds: float, rng) -> dict:
    """One fault and the run after it. Raises Broken."""
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    words, what = scene.words(place, out), f"{scene.name}, {fault}"
    if fault == "kill":
        process = started(words)
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        code = process.returncode
    elif fault == "full disk":
        code, error = ended(started(words, rng.choice((0, 100, 1000, 3000, 10_000))), what)
        if code not in (0, 1, 2):
            raise Broken(f"{what}: exit code {code}: {error[-500:]}")
    else:
        code = _while_changing(scene, place, words, what, rng)
    in_order(scene, out, whole, what, scene.interim)
    code_again, error = ended(started(scene.words(place, out)), f"{what}, then again")
    if code_again != 0:
        raise Broken(f"{what}, then again: exit code {code_again}: {error[-500:]}")
    in_order(scene, out, whole, f"{what}, then again")
    missing = sorted(set(whole) - set(scene.contents(out)))
    if missing:
        raise Broken(f"{what}, then again: {missing} are missing")
    return {"code": code, "hidden": sum(1 for _ in out.rglob(".*partial*"))}


def _while_changing(scene: Scene, place: Path, words: list[str], what: str, rng) -> int:
    """The exit code of the command while its input is cut and put back, again and again."""
    path = place / scene.input
    content, done = path.read_bytes(), threading.Event()

    def change() -> None:
        while not done.wait(rng.uniform(0.001, 0.05)):
            path.write_bytes(content[: rng.randrange(len(content))])
            done.wait(rng.uniform(0.001, 0.02))
            path.write_bytes(content)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        code, error = ended(started(words), what)
    finally:
        done.set()
        thread.join()
        path.write_bytes(content)
    if code not in (0, 1, 2):
        raise Broken(f"{what}: exit code {code}: {error[-500:]}")
    return code


def tried(scene: Scene, rounds: int, seed: int, scratch: Path, faults=FAULTS) -> dict:
    """The counts of one scene; "broken" lists what must not happen."""
    place = scratch / scene.name
    place.mkdir(parents=True)
    with scene.prepared(place):
        began = time.monotonic()
        code, error = ended(started(scene.words(place, place / "whole")), f"{scene.name}, undisturbed")
        seconds = time.monotonic() - began
        if code != 0:
            raise RuntimeError(f"{scene.name} fails undisturbed: {error[-1000:]}")
        whole = scene.contents(place / "whole")
        rng = random.Random(f"{scene.name}:{seed}")
        counts = {"seconds": round(seconds, 2), "files": len(whole), "rounds": 0, "broken": []}
        for fault in faults:
            if fault == "changing input" and scene.input is None:
                continue
            codes: dict[str, int] = {}
            for _ in range(rounds):
                try:
                    result = one_round(scene, place, fault, whole, seconds, rng)
                    codes[str(result["code"])] = codes.get(str(result["code"]), 0) + 1
                except Broken as error:
                    counts["broken"].append(str(error))
                counts["rounds"] += 1
            counts[fault] = codes
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", action="append", choices=sorted(SCENES), help="default: all")
    parser.add_argument("--rounds", type=int, default=20, help="per scene and fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    arguments = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        for name in arguments.scene or SCENES:
            report[name] = tried(SCENES[name], arguments.rounds, arguments.seed, Path(scratch))
            print(json.dumps({name: report[name]}), flush=True)
            arguments.out.write_text(json.dumps(report, indent=1))
    return 1 if any(counts["broken"] for counts in report.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
