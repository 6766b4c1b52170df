"""slicer.packaging without installing anything: what would be installed is recorded.

`installer.requests` holds what a module asked pip for; `installer.fail_with` is raised by every install.
Checks read the environment that the tests run in.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import slicer
import slicer.util

__all__ = ["load_requirements", "pip_check", "pip_ensure", "pip_install", "pip_uninstall"]


@dataclass(frozen=True)
class PipRequest:
    """One call of pip. constraints: the text of the constraints file, or None."""

    requirements: tuple[str, ...]
    constraints: str | None = None
    options: tuple[tuple[str, object], ...] = ()


class Installer:
    """Takes the place of pip."""

    def __init__(self):
        self.requests: list[PipRequest] = []
        self.fail_with: Exception | None = None

    def clear(self) -> None:
        self.requests.clear()
        self.fail_with = None

    def install(self, requirements, constraints=None, **options) -> None:
        if isinstance(requirements, str):
            requirements = requirements.split()
        text = Path(constraints).read_text() if constraints else None
        asked = tuple(str(requirement) for requirement in requirements)
        self.requests.append(PipRequest(asked, text, tuple(sorted(options.items()))))
        if self.fail_with is not None:
            raise self.fail_with


installer = Installer()
pip_install = installer.install
pip_uninstall = installer.install


def load_requirements(path):
    """Requirement objects of a requirements file; comments and pip's options are left out."""
    from packaging.requirements import Requirement

    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(req) -> bool:
    """Whether requirements (str, Requirement or a list of them) are installed, markers considered."""
    return not _missing(req)


def pip_ensure(
    requirements, constraints=None, prompt_install=True, requester=None, skip_in_testing=True, **options
):
    """Ask the user, then install what is missing. RuntimeError where the user declines."""
    missing = _missing(requirements)
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return
    names = ", ".join(missing)
    if prompt_install and not slicer.util.confirmOkCancelDisplay(f"{requester} needs to install: {names}"):
        raise RuntimeError("User declined package installation")
    pip_install(missing, constraints=constraints, requester=requester, **options)


def _missing(requirements) -> list[str]:
    from packaging.requirements import Requirement

    if not isinstance(requirements, list):
        requirements = requirements.split() if isinstance(requirements, str) else [requirements]
    parsed = [Requirement(str(requirement)) for requirement in requirements]
    return [str(requirement) for requirement in parsed if not _is_installed(requirement)]


def _is_installed(requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
