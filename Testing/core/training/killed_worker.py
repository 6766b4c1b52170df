"""A run that is killed (SIGKILL) at a step or while it writes its resume file, for test_killed.py.

    python killed_worker.py FOLDER step 8
    python killed_worker.py FOLDER write 3      (half of the third resume file is on disk)
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager

import torch
from small_runs import data, dropout_recipe

import SegMateCore.weights_file as weights_file
from SegMateCore.training.loop import Control, train


def kill_at_step(step):
    def callback(event):
        if event.kind == "log" and event.step >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    return callback


def kill_in_write(number):
    """Let the stream of the resume file number `number` die half way."""
    seen, whole = [], weights_file.atomic_write

    class Dying:
        def __init__(self, stream):
            self.stream = stream

        def write(self, content):
            self.stream.write(content[: len(content) // 2])
            self.stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def atomic_write(path):
        seen.extend([path] if str(path).endswith("last.resume") else [])
        with whole(path) as stream:
            yield Dying(stream) if len(seen) == number else stream

    weights_file.atomic_write = atomic_write


def main():
    folder, how, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    callbacks = (kill_at_step(number),) if how == "step" else ()
    if how == "write":
        kill_in_write(number)
    train(dropout_recipe(), data(validated=1), folder, Control(callbacks=callbacks))


if __name__ == "__main__":
    main()
