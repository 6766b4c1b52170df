"""Feed SegMateCore with broken and hostile files and tell what it does that it must not.

    python Testing/fuzz/fuzz.py --minutes 30 --seed 1 --out findings
    python Testing/fuzz/fuzz.py --target nifti --seed 1 --only 123      (one input again)

Every input follows from target, seed and number alone. Allowed is success or SegMateError (of the command
line: one line, exit code 2). Findings, made small, lie in --out as files with a report.json;
docs/reliability.md says what has come of them.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from mutations import Tree, mutated
from targets import TARGETS

# Wall time after which a reader is taken to wait for something; its processor time ends earlier.
WALL_SECONDS = 180.0
_SMALLER_TRIES = 60
# The command line is a second way in, tried for one input in this many.
_COMMAND_EVERY = 8


@dataclass
class Counts:
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: dict[str, dict] = field(default_factory=dict)


class Reader:
    """A child process for one target, started anew after each death."""

    def __init__(self, target: str, scratch: Path, patch: str = ""):
        """patch: code that the child runs first."""
        self._target, self._scratch, self._patch, self._child = target, scratch, patch, None
        self.honest = TARGETS[target].trees()

    def answer(self, tree: Tree, command: bool) -> dict:
        """What became of one input."""
        if self._child is None:
            self._start()
        return self._ask(tree, command, True)

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _start(self) -> None:
        words = [sys.executable, str(Path(__file__).parent / "child.py"), self._target, self._patch]
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for tree in self.honest:
            for command in (False, True):
                answer = self._ask(tree, command, False)
                if answer["outcome"] == "finding" and answer["kind"] != "escape":
                    raise RuntimeError(f"an honest input of {self._target} fails: {answer}")

    def _ask(self, tree: Tree, command: bool, limit: bool) -> dict:
        folder = self._scratch / "input"
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in tree.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder.mkdir(exist_ok=True)
        order = json.dumps({"folder": str(folder), "command": command, "limit": limit})
        self._child.stdin.write(order.encode() + b"\n")
        self._child.stdin.flush()
        ready, _, _ = select.select([self._child.stdout], [], [], WALL_SECONDS)
        line = self._child.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        if not ready:
            self._child.kill()
        code = self._child.wait()
        self._child = None
        died = "waiting" if not ready else signal.Signals(-code).name if code < 0 else f"exit {code}"
        kind = "hang" if died in ("SIGPROF", "waiting") else "crash"
        return {"outcome": "finding", "kind": kind, "where": died, "text": died}


def made(target: str, trees: list[Tree], seed: int, number: int) -> Tree:
    """Input `number`, the same each time."""
    rng = random.Random(f"{target}:{seed}:{number}")
    return mutated(rng.choice(trees), trees, rng)


def fuzz(target: str, seed: int, numbers: Iterable[int], seconds: float, scratch: Path) -> Counts:
    """The inputs of one target with these numbers, as many as fit into the time."""
    reader, counts = Reader(target, scratch), Counts()
    trees, started = reader.honest, time.monotonic()
    try:
        for number in numbers:
            if time.monotonic() - started > seconds:
                break
            tree = made(target, trees, seed, number)
            command = number % _COMMAND_EVERY == 0
            answer = reader.answer(tree, command)
            counts.inputs += 1
            counts.refused += answer["outcome"] == "refused"
            if answer["outcome"] == "finding":
                key = f"{answer['kind']}: {answer['where']}"
                if key not in counts.findings:
                    small = _smaller(reader, tree, command, answer)
                    counts.findings[key] = {
                        **answer, "target": target, "seed": seed, "number": number, "tree": small, "times": 0,
                    }  # fmt: skip
                counts.findings[key]["times"] += 1
    finally:
        reader.close()
    counts.seconds = time.monotonic() - started
    return counts


def _smaller(reader: Reader, tree: Tree, command: bool, wanted: dict) -> Tree:
    """The same finding from fewer bytes, by leaving out blocks; hangs are left as they are."""
    if wanted["kind"] == "hang":
        return tree
    tries = 0
    for name in sorted(tree):
        size = len(tree[name]) // 2
        while size and tries < _SMALLER_TRIES:
            start = 0
            while start < len(tree[name]) and tries < _SMALLER_TRIES:
                shorter = {**tree, name: tree[name][:start] + tree[name][start + size :]}
                tries += 1
                answer = reader.answer(shorter, command)
                if (answer.get("kind"), answer.get("where")) == (wanted["kind"], wanted["where"]):
                    tree = shorter
                else:
                    start += size
            size //= 2
    return tree


def _keep(finding: dict, out: Path, number: int) -> None:
    place = out / f"{finding['target']}_{number:03}"
    for name, content in finding.pop("tree").items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    (place / "finding.txt").write_text(f"{finding['text']}\n{finding['seed']} {finding['number']}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="default: all")
    parser.add_argument("--minutes", type=float, default=30, help="of all targets together")
    parser.add_argument("--inputs", type=int, default=10**9, help="at most, per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one input alone")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    targets = arguments.target or sorted(TARGETS)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report, count = {}, 0
    numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        for target in targets:
            seconds = arguments.minutes * 60 / len(targets)
            counts = fuzz(target, arguments.seed, numbers, seconds, Path(scratch))
            for finding in counts.findings.values():
                _keep(finding, arguments.out, count)
                count += 1
            report[target] = {
                "seed": arguments.seed, "inputs": counts.inputs, "refused": counts.refused,
                "seconds": round(counts.seconds, 1),
                "findings": {key: value["times"] for key, value in counts.findings.items()},
            }  # fmt: skip
            print(json.dumps({target: report[target]}), flush=True)
            (arguments.out / "report.json").write_text(json.dumps(report, indent=1))
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
