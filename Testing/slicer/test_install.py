"""What users install: the extension, put in place by CMake, has every file and works from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FAKE_SLICER = Path(__file__).with_name("fake_slicer")
CMAKE = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
MODULES = "lib/Slicer-5.12/qt-scripted-modules"
# Nothing is compiled and nothing is built: the stand-in copies when configuring.
NO_TOOLS = [
    "-G", "Unix Makefiles", f"-DCMAKE_MAKE_PROGRAM={sys.executable}",
    *(f"-DCMAKE_{language}_COMPILER={sys.executable}" for language in ("C", "CXX")),
    *(f"-DCMAKE_{language}_COMPILER_FORCED=1" for language in ("C", "CXX")),
]  # fmt: skip

if CMAKE is None:
    pytest.skip("needs cmake, not found", allow_module_level=True)


def run(*command, **options) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, **options)


def configure(source: Path, build: Path) -> subprocess.CompletedProcess:
    return run(CMAKE, *NO_TOOLS, f"-DSlicer_DIR={FAKE_SLICER}", "-S", source, "-B", build)


def install(source: Path, folder: Path) -> Path:
    """Configure and install an extension; gives the folder with its modules."""
    done = configure(source, folder / "build")
    assert done.returncode == 0, done.stderr
    target = ("--prefix", folder / "installed", "--component", "RuntimeLibraries")
    done = run(CMAKE, "--install", folder / "build", *target)
    assert done.returncode == 0, done.stderr
    return folder / "installed" / MODULES


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("extension")


@pytest.fixture(scope="module")
def installed(folder) -> Path:
    return install(ROOT, folder)


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# Files


def test_every_file_of_module_and_package_is_installed_and_nothing_else(installed):
    module = {name for name in files_below(ROOT / "SegMateSlicer") if not name.startswith("Testing/")}
    core = {f"SegMateCore/{name}" for name in files_below(ROOT / "SegMateCore")}
    papers = {"SegMateCore/LICENSE.txt", "SegMateCore/demo_model_card.md"}
    wanted = {name for name in module | core | papers if Path(name).name != "CMakeLists.txt"}
    found = files_below(installed)
    assert sorted(wanted - found) == [], "not installed: list them in the folder's CMakeLists.txt"
    assert sorted(found - wanted) == [], "installed without a source"


def test_installed_files_are_the_sources(installed):
    for name in ("SegMateSlicer.py", "Resources/UI/SegMateSlicer.ui", "Resources/Icons/SegMateSlicer.png"):
        assert (installed / name).read_bytes() == (ROOT / "SegMateSlicer" / name).read_bytes()
    checkpoint = "SegMateCore/resources/checkpoints/demo.onnx"
    assert (installed / checkpoint).read_bytes() == (ROOT / checkpoint).read_bytes()


# Use


def site_folder(folder: Path, *roots: str) -> Path:
    """A folder of packages that holds these distributions and what they require, and nothing else."""
    from packaging.requirements import Requirement

    site, waiting, done = folder / "site", list(roots), set()
    site.mkdir()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        distribution = metadata.distribution(name)
        required = [Requirement(text) for text in distribution.requires or ()]
        waiting += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
        for top in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return site


PREDICT = """
import sys
sys.path[:0] = sys.argv[1:3]
import json
from importlib.util import find_spec
assert not [name for name in ("torch", "nibabel", "nrrd", "pydicom", "safetensors", "PIL") if find_spec(name)]
import SegMateCore
from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.data.phantom import make_phantom
from SegMateCore.predictor import Predictor
phantom = make_phantom(1002, 6.0)
labels = Predictor.from_checkpoint("demo").predict(phantom.volume).labels
def dice(label):
    one, other = labels == label, phantom.labels == label
    return 2 * (one & other).sum() / (one.sum() + other.sum())
print(json.dumps({
    "package": SegMateCore.__file__,
    "checkpoints": {name: str(path) for name, path in bundled_checkpoints().items()},
    "same_shape": labels.shape == phantom.volume.voxels.shape,
    "dice": [float(dice(label)) for label in (1, 2, 5)],
}))
"""


def test_the_installed_package_predicts_with_nothing_but_numpy_scipy_and_onnxruntime(installed, tmp_path):
    site = site_folder(tmp_path, "numpy", "scipy", "onnxruntime")
    done = run(sys.executable, "-I", "-S", "-c", PREDICT, installed, site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert Path(facts["package"]).parent == installed / "SegMateCore"
    assert Path(facts["checkpoints"]["demo"]) == installed / "SegMateCore/resources/checkpoints/demo.onnx"
    assert facts["same_shape"]
    # Both lungs and the liver of a synthetic CT with 6 mm voxels, where the checkpoint is made for 3 mm.
    assert min(facts["dice"]) > 0.7, facts["dice"]


OPEN_PANEL = """
import json, sys
from pathlib import Path
import host
slicer_host = host.start()
module = slicer_host.load_module(Path(sys.argv[1]) / "SegMateSlicer.py")
panel = slicer_host.open_panel(module)
from SegMateSlicerLib import core_path
from SegMateSlicerLib.setup import dependencies, sample_data
import SegMateCore
print(json.dumps({
    "title": module.title,
    "button": panel.ui.segmentButton.text,
    "library": core_path.__file__,
    "core": SegMateCore.__file__,
    "requirements": str(dependencies.REQUIREMENTS_FILE),
    "icon": str(sample_data.ICON),
    "files": [panel.resourcePath("UI/SegMateSlicer.ui"), str(sample_data.ICON)],
    "onnxruntime": dependencies.state()[0].ok,
}))
"""


def test_the_panel_opens_from_the_installation(installed, tmp_path):
    search = os.pathsep.join([str(installed), str(Path(__file__).parent)])  # as Slicer's launcher does
    env = {**os.environ, "PYTHONPATH": search, "QT_QPA_PLATFORM": "offscreen"}
    done = run(sys.executable, "-c", OPEN_PANEL, installed, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["title"] == "SegMate"
    assert facts["button"] == "Segment"
    for name in ("library", "core", "requirements", "icon"):
        assert Path(facts[name]).is_relative_to(installed), facts[name]
    for name in (*facts["files"], facts["requirements"]):
        assert Path(name).is_file(), name
    assert facts["onnxruntime"]


# What the Extensions Index and the Extensions Manager read


@pytest.fixture(scope="module")
def description(folder, installed) -> dict[str, str]:
    lines = (folder / "build" / "SegMate.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def index_entry() -> dict:
    return json.loads((ROOT / "SegMate.json").read_text(encoding="utf-8"))


def test_the_index_entry_is_one_by_its_schema():
    entry = index_entry()
    version = "slicer-extension-catalog-entry-schema-v1.0.2.json#"
    assert entry["$schema"] == f"https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/{version}"
    types = {
        "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "build_dependencies": list,
        "build_subdirectory": str, "tier": int,
    }  # fmt: skip
    assert {key: type(value) for key, value in entry.items()} == types
    assert entry["category"] == "Segmentation"
    assert 1 <= entry["tier"] <= 5
    assert b"\r" not in (ROOT / "SegMate.json").read_bytes()


def test_the_index_entry_says_what_the_extension_says(description):
    entry = index_entry()
    assert entry["build_dependencies"] == description["depends"].split()
    assert entry["scm_url"] == description["homepage"]
    # The index wants repositories to start with Slicer and extensions not to.
    assert entry["scm_url"].rsplit("/", 1)[1] == "SlicerSegMate"


def test_pictures_of_the_extension_are_in_the_repository(description):
    raw = description["homepage"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    for url in (description["iconurl"], *description["screenshoturls"].split()):
        assert url.startswith(raw), url
        assert (ROOT / url.removeprefix(raw)).is_file(), url
    with Image.open(ROOT / description["iconurl"].removeprefix(raw)) as icon:
        assert icon.format == "PNG" and icon.size == (128, 128)


def test_the_module_and_the_extension_agree_on_the_address(description):
    source = (ROOT / "SegMateSlicer" / "SegMateSlicer.py").read_text(encoding="utf-8")
    assert f'DOCUMENTATION = "{description["homepage"]}/blob/main/docs/slicer/tutorial.md"' in source
    assert (ROOT / "docs/slicer/tutorial.md").is_file()


# The stand-in itself

EXTENSION = """
cmake_minimum_required(VERSION 3.16)
project(Toy)
foreach(name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  set(EXTENSION_${{name}} "x")
endforeach()
set(EXTENSION_README_FILE "${{CMAKE_CURRENT_LIST_FILE}}")
set(EXTENSION_LICENSE_FILE "${{CMAKE_CURRENT_LIST_FILE}}")
find_package(Slicer REQUIRED)
include(${{Slicer_USE_FILE}})
slicerMacroBuildScriptedModule(NAME Toy {arguments})
include(${{Slicer_EXTENSION_GENERATE_CONFIG}})
include(${{Slicer_EXTENSION_CPACK}})
"""


def toy_extension(folder: Path, arguments: str) -> Path:
    source = folder / "Toy"
    (source / "ToyLib").mkdir(parents=True)
    for name in ("Toy.py", "ToyLib/part.py", "ToyLib/table.json"):
        (source / name).touch()
    (source / "CMakeLists.txt").write_text(EXTENSION.format(arguments=arguments))
    return source


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("SCRIPTS Toy ToyLib/part.py", {"Toy.py", "ToyLib/part.py"}),
        ("SCRIPTS Toy.py RESOURCES ToyLib/table.json", {"Toy.py", "ToyLib/table.json"}),
        ("SCRIPTS ToyLib/part WITH_SUBDIR", {"Toy/ToyLib/part.py"}),
        ("SCRIPTS Toy.py ${CMAKE_CURRENT_SOURCE_DIR}/ToyLib/part.py", {"Toy.py"}),
    ],
)
def test_the_stand_in_installs_what_is_listed(arguments, expected, tmp_path):
    assert files_below(install(toy_extension(tmp_path, arguments), tmp_path)) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("SCRIPTS Toy.py ToyLib/missing.py", "ToyLib/missing.py"),
        ("SCRIPTS Toy.py RESOURCES ToyLib", "ToyLib"),
        ("SCRIPTS Toy.py RESSOURCES ToyLib/table.json", "RESSOURCES"),
    ],
)
def test_the_stand_in_refuses_what_slicer_refuses(arguments, message, tmp_path):
    done = configure(toy_extension(tmp_path, arguments), tmp_path / "build")
    assert done.returncode != 0
    assert message in done.stderr
