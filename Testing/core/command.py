"""The command `segmate` as a process of its own, from the working tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def segmate(*words, **options) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "SegMateCore", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        **options,
    )
