"""A worker as a process of its own, from the working tree, and what is said to it and by it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from command import ROOT

from SegMateCore.worker_protocol import EXCHANGE_PREFIX, PROTOCOL

# What may be done in the worker before it starts, such as making its network slow.
START = "import sys; sys.path[0] = {root!r}\n{patch}\nfrom SegMateCore.worker import main; main()"


class Conversation:
    """Sends requests, collects messages. `patch`: code that the worker's process runs first."""

    def __init__(self, parent: Path, patch: str = ""):
        self.folder = Path(tempfile.mkdtemp(prefix=EXCHANGE_PREFIX, dir=parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", START.format(root=str(ROOT), patch=patch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.log: list[str] = []
        self.last_id = 0
        for read in (self._read_replies, self._read_log):
            threading.Thread(target=read, daemon=True).start()

    def _read_replies(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)

    def _read_log(self) -> None:
        for line in self.process.stderr:
            self.log.append(line.decode())

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def send_line(self, line: bytes) -> None:
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, op: str, **fields) -> int:
        self.last_id += 1
        self.send_line(json.dumps({"id": self.last_id, "op": op, **fields}).encode())
        return self.last_id

    def message(self, timeout_s: float = 60) -> dict:
        """The next message; every line must be one."""
        return json.loads(self.lines.get(timeout=timeout_s))

    def answer(self, id: int | None) -> dict:
        """The "done" or "failed" of a request; what comes before it is dropped."""
        while True:
            message = self.message()
            if message["id"] == id and message["event"] != "progress":
                return message

    def first_progress(self, id: int, stage: str) -> None:
        while (message := self.message()).get("stage") != stage:
            assert message["event"] == "progress" and message["id"] == id, message

    def result(self, op: str, **fields) -> dict:
        """The result of a request that must succeed."""
        answer = self.answer(self.send(op, **fields))
        assert answer["event"] == "done", (answer, self.log)
        return answer["result"]

    def failure(self, op: str, **fields) -> tuple[str, str]:
        """(kind, message) of a request that must fail."""
        answer = self.answer(self.send(op, **fields))
        assert answer["event"] == "failed" and "\n" not in answer["message"], answer
        return answer["kind"], answer["message"]

    def opened(self, checkpoint: Path | str) -> Conversation:
        self.result("hello", protocol=PROTOCOL, folder=str(self.folder))
        self.result("open", checkpoint=str(checkpoint))
        return self

    def volume(self, voxels: np.ndarray, affine: np.ndarray, **more) -> dict:
        """The fields of a run on a volume, which is put into the exchange folder."""
        np.save(self.folder / "voxels.npy", voxels)
        return {
            "voxels": str(self.folder / "voxels.npy"), "labels": str(self.folder / "labels.npy"),
            "affine": np.asarray(affine).tolist(), **more,
        }  # fmt: skip

    def has_ended(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        return self.process.poll() is not None
