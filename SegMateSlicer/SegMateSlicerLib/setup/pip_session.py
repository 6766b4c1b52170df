"""How SegMate asks Slicer for Python packages: nothing that others use is replaced, failures are explained.

`kept_versions()` is a constraints file for pip, `explained(package)` turns what an installation raises into a
SegMateError. Both are context managers around calls of slicer.packaging or PyTorchUtils.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from subprocess import CalledProcessError

from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateSlicerLib.setup.pip_failures import explain_failure

KEPT_PACKAGES = ("numpy", "scipy", "SimpleITK", "torch", "torchvision")
"""Installed with Slicer or for other extensions: never replaced."""

REMEMBERED_PIECES = 1000
"""Of pip's log; print writes a line and its end as two pieces."""


def installed_version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed. Imports nothing of it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def kept_versions() -> Iterator[Path]:
    """A constraints file with "name==version" of every kept package that is installed; removed afterwards."""
    importlib.invalidate_caches()
    versions = {name: installed_version(name) for name in KEPT_PACKAGES}
    lines = [f"{name}=={version}\n" for name, version in versions.items() if version is not None]
    with tempfile.TemporaryDirectory(prefix="segmate-") as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(lines), encoding="utf-8")
        yield path


@contextlib.contextmanager
def explained(package: str) -> Iterator[None]:
    """Raise SegMateError where the user declines or pip fails; pip's reason is only in what Slicer prints."""
    log = _PrintedLog(sys.stdout)
    try:
        with contextlib.redirect_stdout(log):
            yield
    except CalledProcessError as error:
        raise SegMateError(explain_failure(package, log.text())) from error
    except (RuntimeError, ImportError, OSError) as error:
        # Slicer has one kind of error for a declined question and for troubles of its own.
        if "declined" in str(error):
            raise declined(package) from None
        raise SegMateError(explain_failure(package, str(error))) from error


def declined(package: str) -> SegMateError:
    """What to raise where the user does not want the package."""
    return SegMateError(
        _("{package} was not installed, as you chose. SegMate needs it to go on.").format(package=package)
    )


class _PrintedLog(io.TextIOBase):
    """Passes everything on to `stream` and remembers the end of it."""

    def __init__(self, stream):
        self._stream = stream
        self._pieces: deque[str] = deque(maxlen=REMEMBERED_PIECES)

    def write(self, text: str) -> int:
        self._pieces.append(text)
        self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def text(self) -> str:
        return "".join(self._pieces)
