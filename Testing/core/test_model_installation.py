"""From the web to a checkpoint with a name: what is installed, recorded, refused and kept."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from types import SimpleNamespace

import pytest
from file_server import Behaviour, FileServer
from model_archives import DEMO, TRAINER, archive, entry, nnunet_zip

from SegMateCore import convert
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.model_installation import Installation, install
from SegMateCore.model_manifest import Source
from SegMateCore.models_folder import installed_models, read_record

pytestmark = pytest.mark.usefixtures("models")


def test_one_archive(models, converted):
    behaviour = Behaviour(nnunet_zip(), cuts=[100, 2_000])
    stages = []
    with FileServer(**{"a.zip": behaviour}) as server:
        how = Installation(progress=lambda stage, *_: stages.append(stage))
        path = install(entry(archive(server.url("a.zip"))), how)
    assert path == models / "tiny_3mm.safetensors"
    assert resolve_checkpoint("tiny_3mm") == path
    assert Checkpoint.read(path).document["name"] == "demo"
    ((folders, options),) = converted
    assert [folder.name for folder in folders] == [TRAINER] and options == {"orientation": "RAS"}
    assert list(dict.fromkeys(stages)) == ["download 1 of 1", "unpack", "convert"]
    record = read_record(path)
    (source,) = record["sources"]
    assert source["sha256"] == hashlib.sha256(behaviour.content).hexdigest()
    assert source["verified"] is False and source["changed"] is False
    assert record["licence"] == "Apache-2.0"
    assert record["weights_sha256"] == Checkpoint.read(path).weights_sha256
    assert sorted(p.name for p in models.iterdir()) == ["downloads", "tiny_3mm.json", path.name]
    assert not list((models / "downloads").iterdir())


def test_a_published_hash_is_recorded_as_verified(converted):
    content = nnunet_zip()
    with FileServer(**{"a.zip": Behaviour(content)}) as server:
        md5 = ("md5", hashlib.md5(content).hexdigest())
        path = install(entry(archive(server.url("a.zip"), md5)), Installation())
    assert read_record(path)["sources"][0]["verified"]


def test_several_archives_in_the_lists_order(converted):
    files = {f"{n}.zip": Behaviour(nnunet_zip(f"Dataset00{n}")) for n in (1, 2, 3)}
    with FileServer(**files) as server:
        sources = [archive(server.url(f"{n}.zip"), place=f"Dataset00{n}") for n in (3, 1, 2)]
        folders = tuple(f"Dataset00{n}/{TRAINER}" for n in (3, 1, 2))
        path = install(entry(*sources, folders=folders), Installation())
    assert [folder.parent.name[-1] for folder in converted[0][0]] == ["3", "1", "2"]
    assert len(read_record(path)["sources"]) == 3


def test_one_of_two_trainings_in_an_archive(converted):
    content = io.BytesIO(nnunet_zip(trainer="Other__nnUNetPlans__3d_fullres"))
    with zipfile.ZipFile(content, "a") as opened:
        for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
            opened.writestr(f"Dataset001_A/{TRAINER}/{name}", DEMO.read_bytes())
    with FileServer(**{"a.zip": Behaviour(content.getvalue())}) as server:
        install(entry(archive(server.url("a.zip"))), Installation())
    assert [folder.name for folder in converted[0][0]] == [TRAINER]


def test_a_bundle_in_single_files(converted):
    files = {"m.pt": Behaviour(DEMO.read_bytes()), "inference.json": Behaviour(b"{}")}
    places = {"m.pt": "models/model.pth", "inference.json": "configs/inference.json"}
    with FileServer(**files) as server:
        sources = [Source(server.url(n), False, places[n], None, None, None) for n in files]
        install(entry(*sources, folders=(".",), kind="monai"), Installation())
    ((folder,), _options) = converted[0]
    assert folder.name == "content"


def test_keeping_the_archive(models, converted):
    behaviour = Behaviour(nnunet_zip())
    with FileServer(**{"a.zip": behaviour}) as server:
        one = entry(archive(server.url("a.zip")))
        install(one, Installation(keep=True))
        assert [p.name for p in (models / "downloads" / "tiny_3mm").iterdir() if p.is_dir()] == ["files"]
        install(one, Installation())
    assert len(behaviour.requests) == 1


def test_a_failed_conversion_costs_no_second_download(models, converted, monkeypatch):
    behaviour = Behaviour(nnunet_zip())
    with FileServer(**{"a.zip": behaviour}) as server:
        one = entry(archive(server.url("a.zip")))
        with monkeypatch.context() as patch:
            patch.setattr(convert, "convert_folders", _fail)
            with pytest.raises(SegMateError, match="no torch"):
                install(one, Installation())
        assert installed_models() == {}
        install(one, Installation())
    assert len(behaviour.requests) == 1


def test_without_torch(converted, monkeypatch):
    def missing(*words, **options):
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(convert, "convert_folders", missing)
    with FileServer(**{"a.zip": Behaviour(nnunet_zip())}) as server:
        with pytest.raises(SegMateError, match="needs PyTorch.*segmate-core"):
            install(entry(archive(server.url("a.zip"))), Installation())


@pytest.mark.parametrize(
    "content, reason",
    [(b"<html>sign in</html>", "no ZIP file"), (nnunet_zip(trainer="Other"), "needs the folder")],
    ids=["damaged", "something else"],
)
def test_an_archive_that_is_refused_is_not_kept(models, converted, content, reason):
    behaviour = Behaviour(content)
    with FileServer(**{"a.zip": behaviour}) as server:
        one = entry(archive(server.url("a.zip")))
        with pytest.raises(SegMateError, match=reason):
            install(one, Installation())
        behaviour.content = nnunet_zip()
        install(one, Installation())


def test_damaged_weights_are_not_installed(models, converted):
    data = bytearray(DEMO.read_bytes())
    data[-1] ^= 0xFF
    with FileServer(**{"a.zip": Behaviour(nnunet_zip(weights=bytes(data)))}) as server:
        with pytest.raises(SegMateError, match="damaged"):
            install(entry(archive(server.url("a.zip"))), Installation())
    assert installed_models() == {}


def test_the_expected_folder_is_missing(converted):
    with FileServer(**{"a.zip": Behaviour(nnunet_zip(trainer="Other"))}) as server:
        with pytest.raises(SegMateError, match="needs the folder.*found Dataset001_A/Other"):
            install(entry(archive(server.url("a.zip"))), Installation())
    assert converted == []


def test_another_file_than_before_is_said(converted):
    behaviour = Behaviour(nnunet_zip())
    with FileServer(**{"a.zip": behaviour}) as server:
        one = entry(archive(server.url("a.zip")))
        install(one, Installation())
        behaviour.content = nnunet_zip() + b"\0"
        path = install(one, Installation())
    assert read_record(path)["sources"][0]["changed"] is True


def test_cancelling_goes_on_later(models, converted):
    asked = []
    with FileServer(**{"a.zip": Behaviour(nnunet_zip())}) as server:
        one = entry(archive(server.url("a.zip")))
        with pytest.raises(Cancelled):
            install(one, Installation(None, lambda *_: asked.append(1), lambda: bool(asked)))
        assert installed_models() == {}
        assert (models / "downloads" / "tiny_3mm" / "files" / "a.zip.part").stat().st_size > 0
        install(one, Installation())


def test_two_at_a_time(models, converted):
    from SegMateCore.data.store_lock import only_here

    with only_here(models / "downloads" / "tiny_3mm", "downloaded"):
        with pytest.raises(SegMateError, match="downloaded by another process"):
            install(entry(archive("https://example.org/a.zip")), Installation())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegMateError, match="cannot write"):
        install(entry(archive("https://example.org/a.zip")), Installation(tmp_path / "file"))


def _fail(*words, **options):
    raise SegMateError("no torch")


class TestDisk:
    """A full disk, before and on every step after the download: said, and no second download."""

    def test_too_little_room_to_unpack(self, models, converted, monkeypatch):
        behaviour = Behaviour(nnunet_zip())
        with FileServer(**{"a.zip": behaviour}) as server:
            one = entry(archive(server.url("a.zip")))
            with monkeypatch.context() as patch:
                disk = len(behaviour.content) + 1_000  # enough to download, not to unpack as well

                def disk_usage(path):
                    return SimpleNamespace(free=disk - sum(file.stat().st_size for file in files(models)))

                patch.setattr(shutil, "disk_usage", disk_usage)
                with pytest.raises(SegMateError, match="0 MB left, .* needed to unpack: make room"):
                    install(one, Installation())
            assert converted == [] and installed_models() == {}
            assert [file.name for file in files(models)] == [".lock", "a.zip"]
            assert install(one, Installation()) == resolve_checkpoint("tiny_3mm")
        assert len(behaviour.requests) == 1

    @pytest.mark.parametrize("step", ["unpacking", "converting", "recording", "renaming"])
    def test_it_fills_on_the_way(self, models, converted, monkeypatch, step):
        def full(*words, **options):
            raise OSError(28, "No space left on device")

        places = {
            "unpacking": ("SegMateCore.archives.open", full),
            "converting": ("SegMateCore.convert.convert_folders", _full),
            "recording": ("SegMateCore.models_folder.atomic_write", _full),
            "renaming": ("os.replace", full),
        }
        behaviour = Behaviour(nnunet_zip())
        with FileServer(**{"a.zip": behaviour}) as server:
            one = entry(archive(server.url("a.zip")))
            install(one, Installation(keep=True))
            with monkeypatch.context() as patch:
                patch.setattr(*places[step], raising=False)
                with pytest.raises(SegMateError, match="No space left"):
                    install(one, Installation(keep=True))
            found = Checkpoint.read(models / "tiny_3mm.safetensors")  # the old one, or the new one, whole
            record = read_record(found.path)
            assert not record or record["weights_sha256"] == found.weights_sha256
            install(one, Installation())
            assert read_record(found.path)
        assert len(behaviour.requests) == 1


def files(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def _full(*words, **options):
    raise SegMateError("cannot write it: No space left on device; make room")
