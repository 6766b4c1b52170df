"""Unpacking: what a ZIP file may not do, said with the entry's name, and nothing left of a refused one."""

from __future__ import annotations

import struct
import unicodedata
import zipfile
from types import SimpleNamespace

import pytest

from SegMateCore.archives import Limits, unpack
from SegMateCore.errors import Cancelled, SegMateError


def archive_of(path, entries, method=zipfile.ZIP_DEFLATED):
    """entries: (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    """An entry whose name stays as it is, with a Unix mode."""
    made = zipfile.ZipInfo("x")
    made.filename = name
    made.external_attr = mode << 16
    return made


def refused(path, folder, *words, limits=None) -> None:
    with pytest.raises(SegMateError) as caught:
        unpack(path, folder, limits)
    text = str(caught.value)
    assert "\n" not in text and path.name in text
    for word in words:
        assert word in text, text
    assert not folder.exists() and sorted(folder.parent.iterdir()) == [path]


def test_files_and_folders(tmp_path):
    path = archive_of(tmp_path / "a.zip", [("d/", b""), ("d/e/f.txt", b"one"), ("g.bin", b"\0" * 3_000)])
    seen = []
    unpack(path, tmp_path / "new" / "out", progress=lambda done, total: seen.append((done, total)))
    out = tmp_path / "new" / "out"
    assert (out / "d" / "e" / "f.txt").read_bytes() == b"one"
    assert (out / "g.bin").read_bytes() == b"\0" * 3_000
    assert sorted(p.name for p in out.rglob("*")) == ["d", "e", "f.txt", "g.bin"]
    assert seen[-1] == (3_003, 3_003)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("../evil", "leaves"),
        ("d/../../evil", "leaves"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("c:evil", "absolute"),
        ("..\\evil", "absolute"),
        ("\\\\host\\share", "absolute"),
        ("d//evil", "not every system"),
        ("./evil", "not every system"),
        ("evil.", "not every system"),
        ("evil ", "not every system"),
        ("file:stream", "not every system"),
        ("NUL", "not every system"),
        ("d/com1.txt", "not every system"),
        ("a\nb", "not every system"),
    ],
)
def test_names_that_leave_the_folder_or_a_system(tmp_path, name, word):
    path = archive_of(tmp_path / "a.zip", [("good", b"1"), (entry(name), b"2")])
    refused(path, tmp_path / "out", word)


def test_a_name_that_ends_early_for_others(tmp_path):
    path = archive_of(tmp_path / "a.zip", [(entry("good.txtXevil"), b"1")])
    path.write_bytes(path.read_bytes().replace(b"good.txtXevil", b"good.txt\0evil"))
    refused(path, tmp_path / "out", "\\x00")


@pytest.mark.parametrize(
    ("mode", "word"),
    [(0o120777, "link"), (0o060644, "neither"), (0o010644, "neither"), (0o140644, "neither")],
)
def test_links_and_devices(tmp_path, mode, word):
    refused(archive_of(tmp_path / "a.zip", [(entry("a", mode), b"/etc/passwd")]), tmp_path / "out", word)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("a", "a"), "twice"),
        (("A/b", "a/B"), "twice"),
        ((unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")), "twice"),
        (("a", "a/b"), "below a file"),
        (("a/b", "A"), "below a file"),
    ],
)
def test_two_entries_for_one_file(tmp_path, names, word):
    path = archive_of(tmp_path / "a.zip", [(name, b"1") for name in names])
    refused(path, tmp_path / "out", word)


class TestBombs:
    def test_one_that_unpacks_to_far_more(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [("zeros", bytes(5_000_000))])
        refused(path, tmp_path / "out", "bomb", "5000000")

    def test_many_small_ones(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [(f"{n}", bytes(900_000)) for n in range(5)])
        refused(path, tmp_path / "out", "bomb", "4500000")

    def test_too_many_entries(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [(f"{n}", b"") for n in range(11)])
        refused(path, tmp_path / "out", "11 entries", limits=Limits(files=10))

    def test_too_large(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [("a", bytes(range(256)) * 10)])
        refused(path, tmp_path / "out", "GB", limits=Limits(bytes=2_000))

    def test_a_declared_size_that_is_too_small(self, tmp_path):
        """What is written is bounded by what is declared, whatever the deflated stream holds."""
        path = archive_of(tmp_path / "a.zip", [("a", bytes(900_000))])
        path.write_bytes(path.read_bytes().replace(struct.pack("<I", 900_000), struct.pack("<I", 10)))
        refused(path, tmp_path / "out", "damaged")


    def test_entries_that_share_their_bytes(self, tmp_path):
        """The second entry of the table is the first one under another name: 64 KB become as much again."""
        entries = [("a", bytes(range(256)) * 256), ("b", b"")]
        path = archive_of(tmp_path / "a.zip", entries, zipfile.ZIP_STORED)
        data = path.read_bytes()
        first = data.index(b"PK\x01\x02")
        second = data.index(b"PK\x01\x02", first + 4)
        copied = data[first:second][:46] + b"a2"
        copied = copied[:28] + struct.pack("<H", 2) + copied[30:]
        data = data[:second] + copied + data[data.index(b"PK\x05\x06") :]
        end = data.index(b"PK\x05\x06")
        data = data[: end + 12] + struct.pack("<I", end - first) + data[end + 16 :]
        path.write_bytes(data)
        assert zipfile.ZipFile(path).namelist() == ["a", "a2"]
        refused(path, tmp_path / "out", "overlap")


class TestRoom:
    def test_too_little_is_said_before_a_byte_is_written(self, tmp_path, monkeypatch):
        asked = []

        def disk_usage(path):
            asked.append(path)
            return SimpleNamespace(free=2_000)

        monkeypatch.setattr("SegMateCore.archives.shutil.disk_usage", disk_usage)
        path = archive_of(tmp_path / "a.zip", [("a", bytes(range(256)) * 10)])
        monkeypatch.setattr("SegMateCore.archives.atomic_folder", None)  # would be called to write
        with pytest.raises(SegMateError, match=f"{tmp_path} has 0 MB left, .*make room.*SEGMATE_MODELS"):
            unpack(path, tmp_path / "new" / "out")
        assert asked == [tmp_path] and sorted(tmp_path.iterdir()) == [path]

    def test_enough_is_enough(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "SegMateCore.archives.shutil.disk_usage", lambda path: SimpleNamespace(free=2_560)
        )
        unpack(archive_of(tmp_path / "a.zip", [("a", bytes(range(256)) * 10)]), tmp_path / "out")
        assert (tmp_path / "out" / "a").stat().st_size == 2_560

    def test_a_disk_that_fills_on_the_way_leaves_nothing(self, tmp_path, monkeypatch):
        resource = pytest.importorskip("resource")
        import signal

        path = archive_of(tmp_path / "a.zip", [("a", bytes(range(256)) * 2_000)], zipfile.ZIP_STORED)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
            with pytest.raises(SegMateError, match="cannot write"):
                unpack(path, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert sorted(tmp_path.iterdir()) == [path]


class TestDamage:
    def test_no_archive(self, tmp_path):
        path = tmp_path / "a.zip"
        path.write_bytes(b"<html>not found</html>")
        refused(path, tmp_path / "out", "no ZIP file")

    @pytest.mark.parametrize("place", [40, 400])
    def test_a_changed_byte(self, tmp_path, place):
        path = archive_of(tmp_path / "a.zip", [("a", bytes(range(256)) * 4)], zipfile.ZIP_STORED)
        data = bytearray(path.read_bytes())
        data[place] ^= 0xFF
        path.write_bytes(data)
        refused(path, tmp_path / "out", "damaged")

    def test_a_cut_one(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [("a", bytes(range(256)) * 4)])
        path.write_bytes(path.read_bytes()[:-30])
        refused(path, tmp_path / "out", "damaged")

    def test_encrypted(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [("a", b"1")], zipfile.ZIP_STORED)
        data = path.read_bytes()
        central = data.index(b"PK\1\2")
        path.write_bytes(data[: central + 8] + b"\1" + data[central + 9 :])
        refused(path, tmp_path / "out", "encrypted")

    def test_other_methods(self, tmp_path):
        path = archive_of(tmp_path / "a.zip", [("a", b"1" * 100)], zipfile.ZIP_LZMA)
        refused(path, tmp_path / "out", "deflate")

    def test_missing(self, tmp_path):
        with pytest.raises(SegMateError, match="No such file"):
            unpack(tmp_path / "a.zip", tmp_path / "out")


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(SegMateError, match="exists already"):
        unpack(archive_of(tmp_path / "a.zip", [("a", b"1")]), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_cancelling_leaves_nothing(tmp_path):
    path = archive_of(tmp_path / "a.zip", [("a", b"1" * 1000)])
    with pytest.raises(Cancelled):
        unpack(path, tmp_path / "out", cancelled=lambda: True)
    assert sorted(tmp_path.iterdir()) == [path]
