"""What SegMate needs beyond Slicer's own Python: what is there, what a checkpoint needs, how it is installed.

ONNX Runtime comes through slicer.packaging, PyTorch and torchvision through the extension PyTorch, timm after
them. Nothing here imports an engine: versions are read from the metadata of installed packages.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.errors import SegMateError
from SegMateSlicerLib.core_path import MODULE_FOLDER
from SegMateSlicerLib.setup.pip_session import declined, explained, installed_version, kept_versions

ONNXRUNTIME, TORCH = "onnxruntime", "torch"

REQUIREMENTS_FILE = MODULE_FOLDER / "Resources" / "requirements.txt"
TORCH_BOUND = ">=2.6"
TIMM = "timm>=1.0.21"
_REQUESTER = "SegMate"


@dataclass(frozen=True)
class Dependency:
    """One row of the panel's list.

    version: None where it is not installed. ok: whether it is there and new enough. needed_for and advice:
    texts for the user; advice is empty where ok.
    """

    name: str
    version: str | None
    needed_for: str
    ok: bool
    advice: str


def state() -> list[Dependency]:
    """All dependencies, ONNX Runtime first, then PyTorch and what goes with it. Takes a few milliseconds."""
    importlib.invalidate_caches()
    onnx_use = _("ONNX Runtime: .onnx checkpoints, such as the bundled one")
    torch_use = _("PyTorch: GPUs and .safetensors checkpoints")
    return [
        _dependency(_onnxruntime_requirement(), onnx_use),
        _dependency(TORCH + TORCH_BOUND, torch_use),
        _dependency("torchvision", torch_use),
        _dependency(TIMM, torch_use),
    ]


def needed_engine(checkpoint: str | os.PathLike | None = None, engine: str = "auto") -> str:
    """ONNXRUNTIME or TORCH.

    checkpoint: a file or a bundled name; None is the bundled demonstration. engine: the user's choice; "auto"
    follows the file. Raises SegMateError where there is no such checkpoint.
    """
    if engine != "auto":
        return engine
    path = resolve_checkpoint("demo" if checkpoint is None else checkpoint)
    return ONNXRUNTIME if path.suffix == ".onnx" else TORCH


def missing_for(checkpoint: str | os.PathLike | None = None, engine: str = "auto") -> list[Dependency]:
    """What has to be installed before this checkpoint can run; empty where nothing has to."""
    onnxruntime, *torch_and_companions = state()
    wanted = [onnxruntime] if needed_engine(checkpoint, engine) == ONNXRUNTIME else torch_and_companions
    return [dependency for dependency in wanted if not dependency.ok]


def ensure_engine(checkpoint: str | os.PathLike | None = None, engine: str = "auto") -> None:
    """Install what this checkpoint needs and lacks, after asking. Raises SegMateError where that fails."""
    if not missing_for(checkpoint, engine):
        return
    if needed_engine(checkpoint, engine) == ONNXRUNTIME:
        ensure_onnxruntime()
    else:
        ensure_torch()


def ensure_onnxruntime() -> None:
    """Install ONNX Runtime where it is missing or too old; Slicer asks the user and shows the progress.

    Raises SegMateError where the user declines or the installation fails.
    """
    packaging = _slicer_packaging()
    with explained("ONNX Runtime"), kept_versions() as constraints:
        packaging.pip_ensure(
            packaging.load_requirements(REQUIREMENTS_FILE), constraints=constraints, requester=_REQUESTER
        )
    _check_installed(state()[:1])


def update_onnxruntime() -> None:
    """Install the newest ONNX Runtime that goes with Slicer's numpy. Raises SegMateError where that fails."""
    packaging = _slicer_packaging()
    with explained("ONNX Runtime"), kept_versions() as constraints:
        packaging.pip_install(
            ["--upgrade", _onnxruntime_requirement()], constraints=constraints, requester=_REQUESTER
        )


def ensure_torch() -> None:
    """Install PyTorch through the extension of that name, then timm, after asking the user.

    PyTorch that is already there stays as it is: where it is too old for SegMate, only a message says so.
    Raises SegMateError for that, for a missing extension, where the user declines or an installation fails.
    """
    torch, torchvision, timm = state()[1:]
    if torch.version is not None and not torch.ok:
        raise SegMateError(
            _(
                "PyTorch {version} is too old for SegMate, which needs {bound}. Another extension may need"
                " this one, so it stays: update it in the module PyTorch Utils, or use an .onnx checkpoint."
            ).format(version=torch.version, bound=TORCH_BOUND)
        )
    complete = torch.ok and torchvision.ok
    if not complete:
        _install_torch(torch.version)
    if not timm.ok:
        _install_timm(ask=complete)
    _check_installed(state()[1:])


def gpu_found() -> str | None:
    """"NVIDIA GPU" or "Apple GPU" where this computer seems to have one that PyTorch could use, else None."""
    if shutil.which("nvidia-smi"):
        return "NVIDIA GPU"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Apple GPU"
    return None


def _dependency(requirement: str, needed_for: str) -> Dependency:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    version = installed_version(wanted.name)
    ok = version is not None and wanted.specifier.contains(version, prereleases=True)
    if ok:
        advice = ""
    elif version is None:
        advice = _("not installed")
    else:
        advice = _("version {bound} is needed").format(bound=str(wanted.specifier))
    return Dependency(wanted.name, version, needed_for, ok, advice)


def _onnxruntime_requirement() -> str:
    lines = REQUIREMENTS_FILE.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(ONNXRUNTIME))


def _slicer_packaging():
    try:
        return importlib.import_module("slicer.packaging")
    except ImportError:
        raise SegMateError(
            _("This Slicer is too old to install packages for SegMate: 5.12 or later is needed.")
        ) from None


def _install_torch(present: str | None) -> None:
    """present: the version of torch that has to stay, where only torchvision is missing."""
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        raise SegMateError(
            _(
                "This needs PyTorch, and the extension PyTorch, which installs it, is missing: open the"
                " Extensions Manager, install PyTorch, restart Slicer and try again. Checkpoints in .onnx run"
                " without it."
            )
        ) from None
    bound = TORCH_BOUND if present is None else f"=={present.partition('+')[0]}"
    with explained("PyTorch"):
        installed = PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=bound)
    if installed is None:
        raise declined("PyTorch")


def _install_timm(ask: bool) -> None:
    """timm alone: of the packages that it names only torch and torchvision are used, and they are there."""
    question = _("SegMate needs the Python package timm (3 MB) for PyTorch checkpoints. Install it?")
    if ask and not slicer.util.confirmOkCancelDisplay(question, _REQUESTER):
        raise declined("timm")
    packaging = _slicer_packaging()
    with explained("timm"), kept_versions() as constraints:
        packaging.pip_install(["--no-deps", TIMM], constraints=constraints, requester=_REQUESTER)


def _check_installed(dependencies: list[Dependency]) -> None:
    """Slicer may install nothing without a word: in its testing mode, for example."""
    missing = [dependency.name for dependency in dependencies if not dependency.ok]
    if missing:
        raise SegMateError(
            _("Still missing after the installation: {names}. Restart Slicer and try again.").format(
                names=", ".join(missing)
            )
        )
