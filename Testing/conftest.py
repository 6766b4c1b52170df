"""What every test may ask for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Slicer's wheel takes every folder named "slicer" in the search path for a part of itself and imports all
# that is in it. Testing/slicer is none.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

# Times of single examples say nothing on a busy machine.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def no_models(tmp_path_factory):
    """The models that somebody has downloaded on this machine are none of the tests' business."""
    os.environ["SEGMATE_MODELS"] = str(tmp_path_factory.mktemp("nothing") / "models")


@pytest.fixture(scope="session")
def sitk():
    """SimpleITK, an optional companion of the package; skips where it is absent."""
    return pytest.importorskip("SimpleITK")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with public CTs and reference figures beside the repository: $SEGMATE_SHARED or ../shared.

    Skips where it is absent; with SEGMATE_REQUIRE_SHARED=1 that is a failure, so that no check falls asleep.
    """
    folder = Path(os.environ.get("SEGMATE_SHARED") or Path(__file__).resolve().parents[1].parent / "shared")
    if (folder / "data").is_dir():
        return folder
    reason = f"no shared data at {folder}; set SEGMATE_SHARED to its folder"
    if os.environ.get("SEGMATE_REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
