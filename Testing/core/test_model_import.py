"""From files on this disk to a checkpoint with a name: what is taken, recorded, replaced and refused."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from model_archives import DEMO, TRAINER, archive, entry, nnunet_zip, zipped

from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.model_installation import Installation, import_model
from SegMateCore.model_manifest import read_manifest
from SegMateCore.models_folder import installed_models, read_record

pytestmark = pytest.mark.usefixtures("models")


def test_a_checkpoint(models, tmp_path):
    given = shutil.copyfile(DEMO, tmp_path / "mine.safetensors")
    path = import_model([given], None, {}, Installation())
    assert path == models / "mine.safetensors" and resolve_checkpoint("mine") == path
    assert path.read_bytes() == DEMO.read_bytes() and given.exists()
    assert read_record(path)["sources"][0]["path"] == str(given)


def test_an_onnx(models):
    path = import_model([DEMO.with_suffix(".onnx")], "small", {}, Installation())
    assert path == models / "small.onnx"


def test_a_zip_that_holds_a_checkpoint(tmp_path, models):
    given = tmp_path / "any.zip"
    given.write_bytes(zipped({"folder/model.safetensors": DEMO.read_bytes(), "readme.txt": b"hello"}))
    assert import_model([given], None, {}, Installation()) == models / "any.safetensors"
    assert not list((models / "downloads").iterdir())


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_folder_or_the_one_above(tmp_path, models, converted, depth):
    given = tmp_path / "given.zip"
    given.write_bytes(nnunet_zip())
    with zipfile.ZipFile(given) as opened:
        opened.extractall(tmp_path / "given")
    folder = (tmp_path / "given" / "Dataset001_A" / TRAINER / "x").parents[depth]
    path = import_model([folder], "mine", {}, Installation())
    assert path == models / "mine.safetensors" and converted[0][1] == {}
    assert (tmp_path / "given" / "Dataset001_A" / TRAINER / "plans.json").is_file()


def test_what_a_download_would_fetch(tmp_path, models, converted):
    content = nnunet_zip()
    given = tmp_path / "a.zip"
    given.write_bytes(content)
    md5 = ("md5", hashlib.md5(content).hexdigest())
    one = entry(archive("https://example.org/a.zip", md5))
    path = import_model([given], None, {"tiny_3mm": one}, Installation())
    assert path == models / "tiny_3mm.safetensors" and converted[0][1] == {"orientation": "RAS"}
    assert read_record(path)["sources"][0]["verified"] and given.exists()


def test_its_hash_is_checked(tmp_path, converted):
    (tmp_path / "a.zip").write_bytes(nnunet_zip())
    one = entry(archive("https://example.org/a.zip", ("md5", "0" * 32)))
    with pytest.raises(SegMateError, match="expected 0000"):
        import_model([tmp_path / "a.zip"], None, {"tiny_3mm": one}, Installation())
    assert (tmp_path / "a.zip").exists() and installed_models() == {}


def test_an_archive_of_two_models_needs_a_name(tmp_path):
    name = "Dataset836_TotalSegmentator_total_3mm_1559subj.zip"
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SegMateError, match="v3_3mm and totalsegmentator_v3_small_3mm.*--name"):
        import_model([tmp_path / name], None, read_manifest(), Installation())


def test_a_renamed_archive_of_the_list(tmp_path, converted):
    (tmp_path / "a (1).zip").write_bytes(nnunet_zip())
    one = entry(archive("https://example.org/a.zip"))
    path = import_model([tmp_path / "a (1).zip"], "tiny_3mm", {"tiny_3mm": one}, Installation())
    assert converted[0][1] == {"orientation": "RAS"} and read_record(path)["title"] == "Tiny"


def test_several_models_in_one(tmp_path, converted):
    for name in ("A", "B"):
        for file in ("plans.json", "dataset.json"):
            (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name / file).write_text("{}")
    with pytest.raises(SegMateError, match="expected one model folder.*A.*B"):
        import_model([tmp_path / "in"], None, {}, Installation())


def test_an_empty_folder(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(SegMateError, match="expected one model folder.*none"):
        import_model([tmp_path / "in"], None, {}, Installation())


def test_a_malicious_archive(tmp_path, models):
    (tmp_path / "a.zip").write_bytes(zipped({"../evil.safetensors": b""}))
    with pytest.raises(SegMateError, match="leaves its folder"):
        import_model([tmp_path / "a.zip"], None, {}, Installation())
    assert not list((models / "downloads").iterdir()) and not list(tmp_path.rglob("evil*"))


def test_a_pickle_under_a_checkpoints_name(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(SegMateError, match="pickle"):
        import_model([tmp_path / "a.safetensors"], None, {}, Installation())
    assert installed_models() == {}


@pytest.mark.parametrize(("name", "word"), [("demo", "came with"), ("../up", "cannot be the name")])
def test_names(name, word):
    with pytest.raises(SegMateError, match=word):
        import_model([DEMO], name, {}, Installation())


def test_a_name_that_is_taken():
    import_model([DEMO], "mine", {}, Installation())
    with pytest.raises(SegMateError, match="there already.*--again"):
        import_model([DEMO], "mine", {}, Installation())
    import_model([DEMO], "mine", {}, Installation(replace=True))


def test_nothing_there(tmp_path):
    with pytest.raises(SegMateError, match="there is no"):
        import_model([tmp_path / "none"], None, {}, Installation())


def test_a_replaced_model_is_the_one_that_its_name_finds(models, tiny_checkpoint):
    """Also where the new file is of another kind than the old one, which would be preferred."""
    import_model([DEMO.with_suffix(".onnx")], "mine", {}, Installation())
    path = import_model([tiny_checkpoint], "mine", {}, Installation(replace=True))
    for backend in ("auto", "onnxruntime", "torch"):
        assert installed_models(backend) == {"mine": path}
    assert Checkpoint.read(resolve_checkpoint("mine")).document["name"] == "tiny"


def test_a_replacement_that_fails_leaves_no_record_of_itself(models, tiny_checkpoint, monkeypatch):
    """As on Windows, where a file that a worker has open cannot be replaced."""
    path = import_model([DEMO], "mine", {}, Installation())
    genuine = os.replace

    def in_use(source, target):
        if target == path:
            raise PermissionError(13, "The process cannot access the file")
        genuine(source, target)

    monkeypatch.setattr(os, "replace", in_use)
    with pytest.raises(SegMateError, match="cannot write .*mine.safetensors"):
        import_model([tiny_checkpoint], "mine", {}, Installation(replace=True))
    assert Checkpoint.read(path).document["name"] == "demo" and read_record(path) == {}


def test_what_a_killed_import_left_is_no_obstacle(tmp_path, models):
    left = models / "downloads" / "mine.import" / "content" / "0"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"")
    (tmp_path / "mine.zip").write_bytes(zipped({"a.safetensors": DEMO.read_bytes()}))
    assert import_model([tmp_path / "mine.zip"], None, {}, Installation()) == models / "mine.safetensors"


@pytest.mark.parametrize("folder", ["My model", "-x"])
def test_folders_with_other_names_ask_for_one(tmp_path, folder):
    (tmp_path / folder).mkdir()
    with pytest.raises(SegMateError, match=f'"{folder}" cannot be the name.*give another --name'):
        import_model([tmp_path / folder], None, {}, Installation())


def test_the_folder_in_which_one_is_has_a_name(tmp_path, models, converted, monkeypatch):
    with zipfile.ZipFile(io.BytesIO(nnunet_zip())) as opened:
        opened.extractall(tmp_path / "given")
    monkeypatch.chdir(tmp_path / "given" / "Dataset001_A")
    assert import_model([Path(".")], None, {}, Installation()) == models / "Dataset001_A.safetensors"
