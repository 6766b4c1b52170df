"""Where models lie on each system, and which file a name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from SegMateCore.models_folder import installed_models, models_folder, read_record, write_record

HOME = Path.home()


@pytest.mark.parametrize(
    ("environment", "platform", "folder"),
    [
        ({"SEGMATE_MODELS": "/data/models", "XDG_DATA_HOME": "/x"}, "linux", Path("/data/models")),
        ({"SEGMATE_MODELS": "~/m"}, "win32", HOME / "m"),
        ({"SEGMATE_MODELS": ""}, "linux", HOME / ".local/share/segmate/models"),
        ({"XDG_DATA_HOME": "/x"}, "linux", Path("/x/segmate/models")),
        ({"XDG_DATA_HOME": "relative"}, "linux", HOME / ".local/share/segmate/models"),
        ({}, "darwin", HOME / "Library/Application Support/SegMate/models"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/SegMate/models")),
        ({}, "win32", HOME / "AppData/Local/SegMate/models"),
    ],
)
def test_the_folder_of_each_system(environment, platform, folder):
    assert models_folder(environment, platform) == folder


def test_names(tmp_path):
    assert installed_models(folder=tmp_path / "none") == {}
    for name in ("a_1.5mm.safetensors", "b.onnx", "b.safetensors", "b.json", ".c.123.partial.safetensors"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.safetensors").mkdir()
    assert installed_models(folder=tmp_path) == {
        "a_1.5mm": tmp_path / "a_1.5mm.safetensors", "b": tmp_path / "b.onnx",
    }
    assert installed_models("torch", tmp_path)["b"] == tmp_path / "b.safetensors"


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path))
    (tmp_path / "a.onnx").write_bytes(b"")
    assert list(installed_models()) == ["a"]


def test_records(tmp_path):
    path = tmp_path / "a_1.5mm.safetensors"
    assert read_record(path) == {}
    write_record(path, {"sources": [{"url": "ä"}]})
    assert (tmp_path / "a_1.5mm.json").is_file()
    assert read_record(path) == {"sources": [{"url": "ä"}]}
    (tmp_path / "a_1.5mm.json").write_text('{"sources": ["a"]}')
    assert read_record(path) == {}
    (tmp_path / "a_1.5mm.json").write_text("[")
    assert read_record(path) == {}
