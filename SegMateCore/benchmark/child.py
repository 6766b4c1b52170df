"""A measurement in a fresh Python process, so that memory and imports of one do not hide behind another's.

`in_child("SegMateCore.benchmark.networks:measure", {...})` runs that function there with these keyword
arguments and gives what it returned; both must be JSON. Run as a module, this file is the child.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from SegMateCore.errors import SegMateError

_PACKAGE_FOLDER = Path(__file__).parents[2]


def in_child(function: str, arguments: dict) -> object:
    """What `function` ("module:name") returned for these keyword arguments in a process of its own.

    Raises SegMateError where it raised that, or ended in another way: with the last line of its errors.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "SegMateCore.benchmark.child", function],
        input=json.dumps(arguments), capture_output=True, text=True, encoding="utf-8",
        env=child_environment(),
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SegMateError(f"the measuring process ended with code {done.returncode}: {last}") from None
    if "error" in answer:
        raise SegMateError(answer["error"])
    return answer["result"]


def child_environment() -> dict[str, str]:
    """This process's, in which a child finds this same package, whatever folder it was imported from."""
    search = [str(_PACKAGE_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONIOENCODING": "utf-8"}


def main() -> int:
    """The child: arguments from stdin, one line of JSON to stdout."""
    module, _, name = sys.argv[1].partition(":")
    try:
        result = {"result": getattr(importlib.import_module(module), name)(**json.load(sys.stdin))}
    except SegMateError as error:
        result = {"error": str(error)}
    except Exception:
        traceback.print_exc()
        return 1
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
