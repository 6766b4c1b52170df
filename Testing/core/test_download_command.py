"""`segmate download` and `segmate models`: words in, files and sentences out; no other command downloads."""

from __future__ import annotations

import io
import json
import shutil
import socket

import pytest
from file_server import Behaviour, FileServer
from model_archives import DEMO, archive, entry, nnunet_zip

from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.cli import main
from SegMateCore.errors import Cancelled
from SegMateCore.model_installation import Installation, import_model
from SegMateCore.model_manifest import read_manifest

pytestmark = pytest.mark.usefixtures("models")


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
        for words in ("Apache-2.0", "--accept-licence", "Doe 2026", "research use only, not for diagnosis"):
            assert words in text
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
