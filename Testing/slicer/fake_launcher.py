"""A process that stands between us and Python, as Slicer's PythonSlicer does, and hides how Python ended."""

from __future__ import annotations

import sys

LAUNCHERS_LINE = "error: [/opt/Slicer/bin/python-real] exit abnormally - Report the problem."
"""What it prints where Python crashed or was killed."""

OFTEN_MEMORY = "crashed or was ended by the system, often for too little memory"
"""What users read then."""


def launcher_command(program: str) -> list[str]:
    """Runs Python with `program`, on the same pipes; ends with Python's exit code, and with 1 for a crash."""
    launcher = (
        "import subprocess, sys\n"
        f"code = subprocess.run([sys.executable, '-c', {program!r}]).returncode\n"
        "if code < 0:\n"
        f"    print({LAUNCHERS_LINE!r}, file=sys.stderr)\n"
        "sys.exit(1 if code < 0 else code)"
    )
    return [sys.executable, "-c", launcher]
