"""Dependencies come by Slicer's rules: asked for, nothing of Slicer's replaced, failures explained.

Slicer's part (slicer.packaging) is the host's, or Slicer's own with SLICER_SOURCE; pip is replaced by
FakePip, which changes a table of versions.
"""

from __future__ import annotations

import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from SegMateCore.errors import SegMateError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("host")
SLICER_HAS = {"numpy": "2.1.3", "scipy": "1.15.0", "SimpleITK": "2.5.2"}


class FakePip:
    """Takes the place of slicer.packaging.pip_install in front of a table of installed versions."""

    def __init__(self, versions: dict[str, str]):
        self.versions = versions
        self.calls: list[tuple[list[str], list[str]]] = []
        self.log_of_failure: str | None = None

    def version(self, name: str) -> str:
        if name not in self.versions:
            raise metadata.PackageNotFoundError(name)
        return self.versions[name]

    def install(self, requirements, constraints=None, **options):
        """Records (requirements, lines of the constraints file)."""
        self.calls.append((list(map(str, requirements)), Path(constraints).read_text().splitlines()))
        if self.log_of_failure is not None:
            print(self.log_of_failure)
            raise subprocess.CalledProcessError(1, "pip install")
        for requirement in requirements:
            if not str(requirement).startswith("-"):
                name, _, bound = str(requirement).partition(">=")
                self.versions[name] = bound or "1.0"


@pytest.fixture
def pip(host, scene, monkeypatch) -> FakePip:
    """A Slicer with nothing but its own packages."""
    import slicer

    pip = FakePip(dict(SLICER_HAS))
    monkeypatch.setattr(metadata, "version", pip.version)
    monkeypatch.setattr(slicer.packaging, "version", pip.version, raising=False)
    monkeypatch.setattr(slicer.packaging, "pip_install", pip.install)
    return pip


@pytest.fixture
def pytorch_extension(pip, monkeypatch):
    """The extension PyTorch: `.asked` holds what installTorch was asked for; `.declines` as the user may."""
    extension = types.SimpleNamespace(asked=[], declines=False)

    class PyTorchUtilsLogic:
        def installTorch(self, **options):
            extension.asked.append(options)
            if extension.declines:
                return None
            pip.versions.setdefault("torch", "2.9.1+cu130")
            pip.versions["torchvision"] = "0.24.1+cu130"
            return types.ModuleType("torch")

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return extension


@pytest.fixture
def dependencies(pip):
    from SegMateSlicerLib.setup import dependencies

    return dependencies


def refusal(function, *arguments) -> str:
    with pytest.raises(SegMateError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# State


def test_state_names_everything_with_versions_and_advice(dependencies, pip):
    pip.versions |= {"onnxruntime": "1.18.1", "torch": "2.9.1+cu130"}
    onnxruntime, torch, torchvision, timm = dependencies.state()
    assert [row.name for row in (onnxruntime, torch, torchvision, timm)] == [
        "onnxruntime", "torch", "torchvision", "timm",
    ]  # fmt: skip
    assert (onnxruntime.version, onnxruntime.ok, onnxruntime.advice) == (
        "1.18.1", False, "version >=1.19 is needed",
    )  # fmt: skip
    assert (torch.version, torch.ok, torch.advice) == ("2.9.1+cu130", True, "")
    assert (timm.version, timm.ok, timm.advice) == (None, False, "not installed")


def test_state_imports_no_engine(tmp_path):
    code = """
import sys, host
host.start()
from SegMateSlicerLib.setup import dependencies
assert dependencies.state()[0].version
print([name for name in ("onnxruntime", "torch", "timm", "safetensors", "nibabel") if name in sys.modules])
"""
    folders = [str(Path(__file__).parent), str(ROOT), str(ROOT / "SegMateSlicer")]
    script = f"import sys; sys.path[:0] = {folders!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_bounds_are_those_of_the_package(dependencies):
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert dependencies._onnxruntime_requirement() in project["dependencies"]
    torch = dependencies.TORCH + dependencies.TORCH_BOUND
    assert {torch, dependencies.TIMM} == set(project["optional-dependencies"]["torch"])


def test_only_onnxruntime_is_in_the_requirements_file(dependencies):
    import slicer

    requirements = slicer.packaging.load_requirements(dependencies.REQUIREMENTS_FILE)
    assert [requirement.name for requirement in requirements] == ["onnxruntime"]


@pytest.mark.parametrize(
    "checkpoint, engine, expected",
    [
        (None, "auto", "onnxruntime"),
        ("demo", "auto", "onnxruntime"),
        ("demo", "torch", "torch"),
        ("demo.safetensors", "auto", "torch"),
        (ROOT / "SegMateCore/resources/checkpoints/demo.onnx", "auto", "onnxruntime"),
    ],
)
def test_the_engine_follows_checkpoint_and_choice(dependencies, checkpoint, engine, expected):
    assert dependencies.needed_engine(checkpoint, engine) == expected


def test_what_is_missing_depends_on_the_checkpoint(dependencies, pip):
    def missing(checkpoint):
        return [dependency.name for dependency in dependencies.missing_for(checkpoint)]

    assert missing("demo") == ["onnxruntime"]
    assert missing("demo.safetensors") == ["torch", "torchvision", "timm"]
    pip.versions |= {"onnxruntime": "1.23.0", "torch": "2.9.1", "torchvision": "0.24.1"}
    assert missing("demo") == []
    assert missing("demo.safetensors") == ["timm"]
    assert "no checkpoint demon" in refusal(dependencies.missing_for, "demon")


@pytest.mark.parametrize(
    "tool, machine, expected",
    [
        ("nvidia-smi", ("Linux", "x86_64"), "NVIDIA GPU"),
        (None, ("Darwin", "arm64"), "Apple GPU"),
        (None, ("Darwin", "x86_64"), None),
        (None, ("Windows", "AMD64"), None),
    ],
)
def test_gpus_are_recognised(dependencies, monkeypatch, tool, machine, expected):
    monkeypatch.setattr(dependencies.shutil, "which", lambda name: tool if name == tool else None)
    monkeypatch.setattr(dependencies.platform, "system", lambda: machine[0])
    monkeypatch.setattr(dependencies.platform, "machine", lambda: machine[1])
    assert dependencies.gpu_found() == expected


# ONNX Runtime


def test_onnxruntime_is_installed_with_slicers_versions_kept(dependencies, pip, host):
    dependencies.ensure_engine("demo")
    kept = ["numpy==2.1.3", "scipy==1.15.0", "SimpleITK==2.5.2"]
    assert pip.calls == [(["onnxruntime>=1.19"], kept)]
    assert [dialog.kind for dialog in host.displayed] == ["ok or cancel"]
    dependencies.ensure_engine("demo")
    assert len(pip.calls) == 1 and len(host.displayed) == 1  # it is there now


def test_an_update_keeps_the_torch_of_other_extensions_too(dependencies, pip):
    pip.versions |= {"onnxruntime": "1.20.0", "torch": "2.9.1+cu130", "torchvision": "0.24.1+cu130"}
    dependencies.update_onnxruntime()
    ((requirements, kept),) = pip.calls
    assert requirements == ["--upgrade", "onnxruntime>=1.19"]
    assert kept[3:] == ["torch==2.9.1+cu130", "torchvision==0.24.1+cu130"]


def test_declining_installs_nothing_and_is_said_plainly(dependencies, pip, host):
    host.dialogs.prepare("ok or cancel", False)
    text = refusal(dependencies.ensure_onnxruntime)
    assert text.startswith("ONNX Runtime was not installed, as you chose")
    assert pip.calls == []


def test_slicers_testing_mode_installs_nothing(dependencies, pip, host):
    host.app.testing = True
    assert "Still missing after the installation: onnxruntime" in refusal(dependencies.ensure_onnxruntime)
    assert pip.calls == []


def test_a_failing_pip_is_explained_from_its_log(dependencies, pip, capsys):
    pip.log_of_failure = "ERROR: Could not install packages: [Errno 28] No space left on device"
    text = refusal(dependencies.ensure_onnxruntime)
    assert text == "ONNX Runtime could not be installed: the disk is full. Free some space and try again."
    assert "Errno 28" in capsys.readouterr().out  # and the console still shows all of it


# PyTorch


def test_torch_comes_from_its_extension_and_timm_alone(dependencies, pip, pytorch_extension, host):
    dependencies.ensure_engine("demo.safetensors")
    assert pytorch_extension.asked == [{"askConfirmation": True, "torchVersionRequirement": ">=2.6"}]
    ((requirements, kept),) = pip.calls
    assert requirements == ["--no-deps", "timm>=1.0.21"]
    assert {"torch==2.9.1+cu130", "torchvision==0.24.1+cu130", "numpy==2.1.3"} <= set(kept)
    assert host.displayed == []  # PyTorchUtils has asked already


def test_torch_that_is_there_stays(dependencies, pip, pytorch_extension, host):
    pip.versions["torch"] = "2.7.0+cpu"
    dependencies.ensure_torch()
    assert pytorch_extension.asked == [{"askConfirmation": True, "torchVersionRequirement": "==2.7.0"}]
    assert pip.versions["torch"] == "2.7.0+cpu"


def test_timm_alone_is_asked_for(dependencies, pip, pytorch_extension, host):
    pip.versions |= {"torch": "2.7.0", "torchvision": "0.22.0"}
    host.dialogs.prepare("ok or cancel", False)
    assert refusal(dependencies.ensure_torch).startswith("timm was not installed, as you chose")
    assert pip.calls == [] and pytorch_extension.asked == []
    dependencies.ensure_torch()
    assert [call[0] for call in pip.calls] == [["--no-deps", "timm>=1.0.21"]]


def test_an_old_torch_is_left_to_the_user(dependencies, pip, pytorch_extension):
    pip.versions["torch"] = "2.4.1"
    text = refusal(dependencies.ensure_torch)
    assert "2.4.1 is too old" in text and "PyTorch Utils" in text
    assert pytorch_extension.asked == [] and pip.calls == []


def test_without_the_extension_the_way_to_it_is_named(dependencies, pip, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    text = refusal(dependencies.ensure_torch)
    assert "Extensions Manager" in text and ".onnx" in text
    assert pip.calls == []


def test_declining_torch_installs_no_timm(dependencies, pip, pytorch_extension):
    pytorch_extension.declines = True
    assert refusal(dependencies.ensure_torch).startswith("PyTorch was not installed, as you chose")
    assert pip.calls == []


def test_timm_builds_and_runs_a_checkpoint_without_the_rest_of_its_requirements():
    pytest.importorskip("timm")
    code = """
import sys
for name in ("huggingface_hub", "yaml", "safetensors", "nibabel", "nrrd", "pydicom", "onnxruntime"):
    sys.modules[name] = None
import numpy as np
from SegMateCore.predictor import Predictor
from SegMateCore.volume import Volume
voxels = np.linspace(-1000, 400, 4 * 32 * 32).reshape(4, 32, 32).astype(np.int16)
predictor = Predictor.from_checkpoint("demo", "cpu", backend="torch")
print(predictor.predict(Volume(voxels, np.diag([3.0, 3, 3, 1]))).labels.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout.split("\n")[-2:] == ["(4, 32, 32)", ""], done.stderr[-2000:]
