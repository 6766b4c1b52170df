"""From the web or from files to a checkpoint with a name: what is installed, recorded, refused and kept."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from file_server import Behaviour, FileServer

from SegMateCore import convert
from SegMateCore import download as download_module
from SegMateCore.bundled import bundled_checkpoints, resolve_checkpoint
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.cli import main
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.model_installation import Installation, import_model, install
from SegMateCore.model_manifest import RESOURCES, Licence, ManifestEntry, Source, read_manifest
from SegMateCore.models_folder import installed_models, read_record

DEMO = bundled_checkpoints("torch")["demo"]
TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A models' folder of our own, no pauses, no proxy."""
    monkeypatch.setattr(download_module, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path / "models"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def converted(monkeypatch) -> list:
    """A converter that takes the "checkpoint" out of the first folder; what it was called with."""
    calls = []

    def convert_folders(folders, out_path, half=False, progress=None, **options):
        calls.append(([Path(folder) for folder in folders], options))
        shutil.copyfile(next(Path(folders[0]).rglob("*.pth")), out_path)

    monkeypatch.setattr(convert, "convert_folders", convert_folders)
    return calls


def zipped(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def nnunet_zip(data_set="Dataset001_A", trainer=TRAINER, weights=None) -> bytes:
    """An archive with a model folder, whose "weights" are those of the bundled checkpoint."""
    return zipped(
        {
            f"{data_set}/{trainer}/plans.json": b"{}",
            f"{data_set}/{trainer}/dataset.json": b"{}",
            f"{data_set}/{trainer}/fold_0/checkpoint_final.pth": weights or DEMO.read_bytes(),
        }
    )


def entry(*sources: Source, folders=(f"Dataset001_A/{TRAINER}",), kind="nnunet", name="tiny_3mm"):
    licence = Licence("Apache-2.0", RESOURCES / "licences" / "Apache-2.0.txt", "https://example.org")
    return ManifestEntry(
        name, "Tiny", "nnU-Net", ("liver",), 3, 3.0, licence, "https://example.org", ("Doe 2026",),
        sources, kind, folders, {"orientation": "RAS"},
    )


def archive(url: str, hash=None, place="Dataset001_A") -> Source:
    return Source(url, True, place, None, None, hash)


class TestInstall:
    def test_one_archive(self, models, converted):
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

    def test_a_published_hash_is_recorded_as_verified(self, converted):
        content = nnunet_zip()
        with FileServer(**{"a.zip": Behaviour(content)}) as server:
            md5 = ("md5", hashlib.md5(content).hexdigest())
            path = install(entry(archive(server.url("a.zip"), md5)), Installation())
        assert read_record(path)["sources"][0]["verified"]

    def test_several_archives_in_the_lists_order(self, converted):
        files = {f"{n}.zip": Behaviour(nnunet_zip(f"Dataset00{n}")) for n in (1, 2, 3)}
        with FileServer(**files) as server:
            sources = [archive(server.url(f"{n}.zip"), place=f"Dataset00{n}") for n in (3, 1, 2)]
            folders = tuple(f"Dataset00{n}/{TRAINER}" for n in (3, 1, 2))
            path = install(entry(*sources, folders=folders), Installation())
        assert [folder.parent.name[-1] for folder in converted[0][0]] == ["3", "1", "2"]
        assert len(read_record(path)["sources"]) == 3

    def test_one_of_two_trainings_in_an_archive(self, converted):
        content = io.BytesIO(nnunet_zip(trainer="Other__nnUNetPlans__3d_fullres"))
        with zipfile.ZipFile(content, "a") as opened:
            for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
                opened.writestr(f"Dataset001_A/{TRAINER}/{name}", DEMO.read_bytes())
        with FileServer(**{"a.zip": Behaviour(content.getvalue())}) as server:
            install(entry(archive(server.url("a.zip"))), Installation())
        assert [folder.name for folder in converted[0][0]] == [TRAINER]

    def test_a_bundle_in_single_files(self, converted):
        files = {"m.pt": Behaviour(DEMO.read_bytes()), "inference.json": Behaviour(b"{}")}
        places = {"m.pt": "models/model.pth", "inference.json": "configs/inference.json"}
        with FileServer(**files) as server:
            sources = [Source(server.url(n), False, places[n], None, None, None) for n in files]
            install(entry(*sources, folders=(".",), kind="monai"), Installation())
        ((folder,), _options) = converted[0]
        assert folder.name == "content"

    def test_keeping_the_archive(self, models, converted):
        behaviour = Behaviour(nnunet_zip())
        with FileServer(**{"a.zip": behaviour}) as server:
            one = entry(archive(server.url("a.zip")))
            install(one, Installation(keep=True))
            assert [p.name for p in (models / "downloads" / "tiny_3mm").iterdir() if p.is_dir()] == ["files"]
            install(one, Installation())
        assert len(behaviour.requests) == 1

    def test_a_failed_conversion_costs_no_second_download(self, models, converted, monkeypatch):
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

    def test_without_torch(self, converted, monkeypatch):
        def missing(*words, **options):
            raise ModuleNotFoundError("No module named 'torch'")

        monkeypatch.setattr(convert, "convert_folders", missing)
        with FileServer(**{"a.zip": Behaviour(nnunet_zip())}) as server:
            with pytest.raises(SegMateError, match="needs PyTorch.*segmate-core"):
                install(entry(archive(server.url("a.zip"))), Installation())

    def test_a_damaged_archive_is_not_kept(self, models, converted):
        behaviour = Behaviour(b"<html>sign in</html>")
        with FileServer(**{"a.zip": behaviour}) as server:
            one = entry(archive(server.url("a.zip")))
            with pytest.raises(SegMateError, match="no ZIP file"):
                install(one, Installation())
            behaviour.content = nnunet_zip()
            install(one, Installation())

    def test_damaged_weights_are_not_installed(self, models, converted):
        data = bytearray(DEMO.read_bytes())
        data[-1] ^= 0xFF
        with FileServer(**{"a.zip": Behaviour(nnunet_zip(weights=bytes(data)))}) as server:
            with pytest.raises(SegMateError, match="damaged"):
                install(entry(archive(server.url("a.zip"))), Installation())
        assert installed_models() == {}

    def test_the_expected_folder_is_missing(self, converted):
        with FileServer(**{"a.zip": Behaviour(nnunet_zip(trainer="Other"))}) as server:
            with pytest.raises(SegMateError, match="needs the folder.*found Dataset001_A/Other"):
                install(entry(archive(server.url("a.zip"))), Installation())
        assert converted == []

    def test_another_file_than_before_is_said(self, converted):
        behaviour = Behaviour(nnunet_zip())
        with FileServer(**{"a.zip": behaviour}) as server:
            one = entry(archive(server.url("a.zip")))
            install(one, Installation())
            behaviour.content = nnunet_zip() + b"\0"
            path = install(one, Installation())
        assert read_record(path)["sources"][0]["changed"] is True

    def test_cancelling_goes_on_later(self, models, converted):
        asked = []
        with FileServer(**{"a.zip": Behaviour(nnunet_zip())}) as server:
            one = entry(archive(server.url("a.zip")))
            with pytest.raises(Cancelled):
                install(one, Installation(None, lambda *_: asked.append(1), lambda: bool(asked)))
            assert installed_models() == {}
            assert (models / "downloads" / "tiny_3mm" / "files" / "a.zip.part").stat().st_size > 0
            install(one, Installation())

    def test_two_at_a_time(self, models, converted):
        from SegMateCore.data.store_lock import only_here

        with only_here(models / "downloads" / "tiny_3mm", "downloaded"):
            with pytest.raises(SegMateError, match="downloaded by another process"):
                install(entry(archive("https://example.org/a.zip")), Installation())

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(SegMateError, match="cannot write"):
            install(entry(archive("https://example.org/a.zip")), Installation(tmp_path / "file"))


def _fail(*words, **options):
    raise SegMateError("no torch")


class TestImport:
    def test_a_checkpoint(self, models, tmp_path):
        given = shutil.copyfile(DEMO, tmp_path / "mine.safetensors")
        path = import_model([given], None, {}, Installation())
        assert path == models / "mine.safetensors" and resolve_checkpoint("mine") == path
        assert path.read_bytes() == DEMO.read_bytes() and given.exists()
        assert read_record(path)["sources"][0]["path"] == str(given)

    def test_an_onnx(self, models):
        path = import_model([DEMO.with_suffix(".onnx")], "small", {}, Installation())
        assert path == models / "small.onnx"

    def test_a_zip_that_holds_a_checkpoint(self, tmp_path, models):
        given = tmp_path / "any.zip"
        given.write_bytes(zipped({"folder/model.safetensors": DEMO.read_bytes(), "readme.txt": b"hello"}))
        assert import_model([given], None, {}, Installation()) == models / "any.safetensors"
        assert not list((models / "downloads").iterdir())

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_a_folder_or_the_one_above(self, tmp_path, models, converted, depth):
        given = tmp_path / "given.zip"
        given.write_bytes(nnunet_zip())
        with zipfile.ZipFile(given) as opened:
            opened.extractall(tmp_path / "given")
        folder = (tmp_path / "given" / "Dataset001_A" / TRAINER / "x").parents[depth]
        path = import_model([folder], "mine", {}, Installation())
        assert path == models / "mine.safetensors" and converted[0][1] == {}
        assert (tmp_path / "given" / "Dataset001_A" / TRAINER / "plans.json").is_file()

    def test_what_a_download_would_fetch(self, tmp_path, models, converted):
        content = nnunet_zip()
        given = tmp_path / "a.zip"
        given.write_bytes(content)
        md5 = ("md5", hashlib.md5(content).hexdigest())
        one = entry(archive("https://example.org/a.zip", md5))
        path = import_model([given], None, {"tiny_3mm": one}, Installation())
        assert path == models / "tiny_3mm.safetensors" and converted[0][1] == {"orientation": "RAS"}
        assert read_record(path)["sources"][0]["verified"] and given.exists()

    def test_its_hash_is_checked(self, tmp_path, converted):
        (tmp_path / "a.zip").write_bytes(nnunet_zip())
        one = entry(archive("https://example.org/a.zip", ("md5", "0" * 32)))
        with pytest.raises(SegMateError, match="expected 0000"):
            import_model([tmp_path / "a.zip"], None, {"tiny_3mm": one}, Installation())
        assert (tmp_path / "a.zip").exists() and installed_models() == {}

    def test_an_archive_of_two_models_needs_a_name(self, tmp_path):
        name = "Dataset836_TotalSegmentator_total_3mm_1559subj.zip"
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(SegMateError, match="v3_3mm and totalsegmentator_v3_small_3mm.*--name"):
            import_model([tmp_path / name], None, read_manifest(), Installation())

    def test_a_renamed_archive_of_the_list(self, tmp_path, converted):
        (tmp_path / "a (1).zip").write_bytes(nnunet_zip())
        one = entry(archive("https://example.org/a.zip"))
        path = import_model([tmp_path / "a (1).zip"], "tiny_3mm", {"tiny_3mm": one}, Installation())
        assert converted[0][1] == {"orientation": "RAS"} and read_record(path)["title"] == "Tiny"

    def test_several_models_in_one(self, tmp_path, converted):
        for name in ("A", "B"):
            for file in ("plans.json", "dataset.json"):
                (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
                (tmp_path / "in" / name / file).write_text("{}")
        with pytest.raises(SegMateError, match="expected one model folder.*A.*B"):
            import_model([tmp_path / "in"], None, {}, Installation())

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "in").mkdir()
        with pytest.raises(SegMateError, match="expected one model folder.*none"):
            import_model([tmp_path / "in"], None, {}, Installation())

    def test_a_malicious_archive(self, tmp_path, models):
        (tmp_path / "a.zip").write_bytes(zipped({"../evil.safetensors": b""}))
        with pytest.raises(SegMateError, match="leaves its folder"):
            import_model([tmp_path / "a.zip"], None, {}, Installation())
        assert not list((models / "downloads").iterdir()) and not list(tmp_path.rglob("evil*"))

    def test_a_pickle_under_a_checkpoints_name(self, tmp_path):
        (tmp_path / "a.safetensors").write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(SegMateError, match="pickle"):
            import_model([tmp_path / "a.safetensors"], None, {}, Installation())
        assert installed_models() == {}

    @pytest.mark.parametrize(("name", "word"), [("demo", "came with"), ("../up", "cannot be the name")])
    def test_names(self, name, word):
        with pytest.raises(SegMateError, match=word):
            import_model([DEMO], name, {}, Installation())

    def test_a_name_that_is_taken(self):
        import_model([DEMO], "mine", {}, Installation())
        with pytest.raises(SegMateError, match="there already.*--again"):
            import_model([DEMO], "mine", {}, Installation())
        import_model([DEMO], "mine", {}, Installation(replace=True))

    def test_nothing_there(self, tmp_path):
        with pytest.raises(SegMateError, match="there is no"):
            import_model([tmp_path / "none"], None, {}, Installation())


class TestCommand:
    @pytest.fixture
    def public(self, monkeypatch, converted):
        """The list's 3 mm model, served here."""
        behaviour = Behaviour(nnunet_zip())
        with FileServer(**{"a.zip": behaviour}) as server:
            one = entry(archive(server.url("a.zip")))
            for module in ("model_listing", "model_manifest"):
                monkeypatch.setattr(f"SegMateCore.{module}.read_manifest", lambda: {"tiny_3mm": one})
            yield behaviour

    def test_the_licence_is_shown_and_must_be_accepted(self, public, capsys):
        assert main(["download", "tiny_3mm"]) == 2
        text = capsys.readouterr().err
        assert "Apache-2.0" in text and "--accept-licence" in text and "Doe 2026" in text
        assert public.requests == []

    @pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
    def test_on_a_terminal_it_asks(self, public, capsys, monkeypatch, answer, code):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        shown = Terminal()
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        monkeypatch.setattr("sys.stderr", shown)
        assert main(["download", "tiny_3mm"]) == code
        assert "TERMS AND CONDITIONS" in shown.getvalue() and "[y/N]" in shown.getvalue()
        assert len(public.requests) == (code == 0)

    def test_the_whole_way(self, public, models, capsys):
        assert main(["download", "tiny_3mm", "--accept-licence", "--quiet"]) == 0
        text = capsys.readouterr()
        assert text.out.strip() == str(models / "tiny_3mm.safetensors")
        assert "unverified" in text.err and "--checkpoint tiny_3mm" in text.err
        assert main(["download", "tiny_3mm", "--accept-licence"]) == 0
        assert "there already" in capsys.readouterr().err and len(public.requests) == 1
        assert main(["models"]) == 0
        assert "tiny_3mm" in (out := capsys.readouterr().out) and "unverified" in out
        assert main(["info", "tiny_3mm"]) == 0
        public.content += b"\0"
        assert main(["download", "tiny_3mm", "--accept-licence", "--again", "--quiet"]) == 0
        assert "not what was downloaded here before" in capsys.readouterr().err

    def test_into_another_folder(self, public, tmp_path, models):
        words = ["download", "tiny_3mm", "--accept-licence", "--quiet", "--to", str(tmp_path / "other")]
        assert main(words) == 0
        assert (tmp_path / "other" / "tiny_3mm.safetensors").is_file() and not models.exists()

    def test_stopping(self, public, monkeypatch, capsys):
        def stop(*words):
            raise Cancelled

        monkeypatch.setattr("SegMateCore.model_installation.download", stop)
        assert main(["download", "tiny_3mm", "--accept-licence"]) == 130
        assert "goes on from there" in capsys.readouterr().err

    def test_an_import(self, tmp_path, models, capsys):
        assert main(["download", "--import", str(DEMO), "--name", "mine"]) == 0
        assert (models / "mine.safetensors").is_file()
        assert main(["download", "--import", str(tmp_path / "none")]) == 2

    @pytest.mark.parametrize(
        ("words", "word"),
        [
            ([], "give NAME"),
            (["a", "--import", "b"], "give NAME"),
            (["totalsegmentator_3m"], 'Did you mean "totalsegmentator_3mm"'),
            (["totalsegmentator_3mm", "--name", "x"], "--name is for --import"),
        ],
    )
    def test_wrong_words(self, words, word, capsys):
        assert main(["download", *words]) == 2
        assert word in capsys.readouterr().err

    def test_the_list(self, capsys, models):
        import_model([DEMO], "totalsegmentator_6mm", {}, Installation())
        assert main(["models", "--available"]) == 0
        lines = capsys.readouterr().out.splitlines()
        row = {line.split()[0]: line for line in lines if line}
        assert row["totalsegmentator_6mm"].endswith("yes")
        assert not row["totalsegmentator_3mm"].endswith("yes")
        assert "8 of 9" in row["monai_wholebody_3mm"] and "size unknown" in row["monai_wholebody_3mm"]
        assert main(["models", "--available", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["available"]
        assert [r["name"] for r in rows] == list(read_manifest()) and rows[1]["installed"]

    def test_a_broken_file_does_not_spoil_the_list(self, models, capsys):
        models.mkdir()
        (models / "broken.safetensors").write_bytes(b"nothing")
        assert main(["models"]) == 0
        assert "broken" in capsys.readouterr().out


class TestWords:
    """Every command takes a downloaded name, and none of them downloads."""

    def test_a_bundled_name_goes_first(self, models):
        models.mkdir()
        shutil.copyfile(DEMO, models / "demo.safetensors")
        assert resolve_checkpoint("demo", "torch") == DEMO

    @pytest.fixture
    def offline(self, monkeypatch):
        def blocked(*words, **options):
            raise AssertionError("a socket was asked for")

        monkeypatch.setattr(socket.socket, "connect", blocked)
        monkeypatch.setattr(socket, "create_connection", blocked)
        monkeypatch.setattr(socket, "getaddrinfo", blocked)

    @pytest.mark.parametrize("name", ["totalsegmentator_3mm", "monai_wholebody_1.5mm"])
    def test_a_public_model_that_is_not_here_is_not_fetched(self, offline, ct, tmp_path, capsys, name):
        words = ["predict", str(ct), "-o", str(tmp_path / "out.nii.gz"), "--checkpoint", name]
        assert main(words) == 2
        text = capsys.readouterr().err
        assert f"`segmate download {name}`" in text and text.count("\n") == 1
        for words in (
            ["info", name],
            ["convert", name, str(tmp_path / "out.safetensors")],
            ["distill", "--teacher", name, "--phantoms", "1", "-o", str(tmp_path / "run")],
            ["finetune", "--from", name, "--phantoms", "1", "-o", str(tmp_path / "run")],
        ):
            assert main(words) == 2
            assert f"segmate download {name}" in capsys.readouterr().err

    def test_predict_with_a_downloaded_name_needs_no_network(self, offline, ct, bands_onnx, tmp_path):
        import_model([bands_onnx], "bands", {}, Installation())
        out = tmp_path / "out.nii.gz"
        assert main(["predict", str(ct), "-o", str(out), "--checkpoint", "bands", "--quiet"]) == 0
        assert out.is_file()
