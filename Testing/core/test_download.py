"""Downloads that are cut, refused, changed, too long, out of room or cancelled, from a server of our own."""

from __future__ import annotations

import errno
import hashlib
import random
import re
from types import SimpleNamespace

import pytest
from file_server import Behaviour, FileServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from SegMateCore import download as module
from SegMateCore.download import Expected, check_file, download
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.web_source import check_address

CONTENT = random.Random(7).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pauses, and no proxy of the machine's between us and ourselves."""
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0, 0.0))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def fetch(behaviour: Behaviour, path, expected=None, **options):
    with FileServer(file=behaviour) as server:
        return download(server.url("file"), path, expected, **options)


def starts(behaviour: Behaviour) -> list[str]:
    return [headers.get("Range", "whole") for _, headers in behaviour.requests]


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(behaviour: Behaviour, path, expected=None, **options) -> str:
    with pytest.raises(SegMateError) as caught:
        fetch(behaviour, path, expected, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestArrival:
    def test_the_whole_file(self, tmp_path):
        seen = []
        received = fetch(
            Behaviour(CONTENT), tmp_path / "new" / "a.zip", Expected(len(CONTENT), ("md5", MD5)),
            progress=lambda done, total: seen.append((done, total)),
        )
        assert received.path.read_bytes() == CONTENT
        assert (received.bytes, received.sha256, received.verified) == (len(CONTENT), SHA256, True)
        assert left(tmp_path / "new") == ["a.zip"]
        assert seen == sorted(seen) and seen[-1] == (len(CONTENT), len(CONTENT))

    def test_without_a_published_hash_it_is_not_called_verified(self, tmp_path):
        received = fetch(Behaviour(CONTENT), tmp_path / "a")
        assert received.sha256 == SHA256 and not received.verified

    @pytest.mark.parametrize("length", ["chunked", "none"])
    def test_a_server_that_does_not_say_how_much(self, tmp_path, length):
        assert fetch(Behaviour(CONTENT, length=length), tmp_path / "a").sha256 == SHA256

    def test_what_is_there_is_not_fetched_again(self, tmp_path):
        (tmp_path / "a").write_bytes(CONTENT)
        behaviour = Behaviour(b"other")
        assert fetch(behaviour, tmp_path / "a", Expected(hash=("sha256", SHA256))).verified
        assert behaviour.requests == []

    def test_what_is_there_and_wrong_is_replaced(self, tmp_path):
        (tmp_path / "a").write_bytes(CONTENT[:-1] + b"x")
        assert fetch(Behaviour(CONTENT), tmp_path / "a", Expected(hash=("sha256", SHA256))).verified
        assert (tmp_path / "a").read_bytes() == CONTENT

    def test_it_says_who_asks_and_no_more(self, tmp_path):
        behaviour = Behaviour(CONTENT)
        fetch(behaviour, tmp_path / "a")
        ((_, headers),) = behaviour.requests
        assert set(headers) == {"Host", "User-Agent", "Accept-Encoding", "Connection"}
        assert headers["User-Agent"].startswith("segmate/")


class TestCuts:
    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(cuts=st.lists(st.integers(0, 400_000), max_size=3))
    def test_it_goes_on_from_any_byte(self, tmp_path_factory, cuts):
        behaviour = Behaviour(CONTENT, cuts=list(cuts))
        path = tmp_path_factory.mktemp("cut") / "a"
        assert fetch(behaviour, path).sha256 == SHA256
        sums = [sum(cuts[:n]) for n in range(len(cuts) + 1)]
        assert starts(behaviour) == [
            f"bytes={sent}-" if sent else "whole" for sent in sums if sent < len(CONTENT)
        ]

    def test_the_next_call_goes_on(self, tmp_path):
        behaviour = Behaviour(CONTENT, cuts=[300_000] + [0] * 4)
        text = refused(behaviour, tmp_path / "a")
        assert "cut" in text and "0.3 MB are kept" in text
        assert left(tmp_path) == ["a.part", "a.part.json"]
        with FileServer(file=behaviour) as server:
            # The port is another one: the part belongs to an address.
            note = tmp_path / "a.part.json"
            note.write_text(re.sub(r"http://[\d.:]+", server.url("file")[:-5], note.read_text()))
            behaviour.requests.clear()
            assert download(server.url("file"), tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["bytes=300000-"]
        assert left(tmp_path) == ["a"]

    def test_another_address_begins_anew(self, tmp_path):
        refused(Behaviour(b"x" * 400_000, cuts=[300_000] + [0] * 4), tmp_path / "a")
        behaviour = Behaviour(CONTENT)
        assert fetch(behaviour, tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole"]

    def test_a_server_without_ranges_begins_anew(self, tmp_path):
        behaviour = Behaviour(CONTENT, cuts=[300_000, 10], ranges=False)
        assert fetch(behaviour, tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole", "bytes=300000-", "bytes=10-"]

    @pytest.mark.parametrize("if_range", [True, False])
    def test_a_file_that_changed_in_between_is_not_mixed(self, tmp_path, monkeypatch, if_range):
        behaviour = Behaviour(CONTENT, cuts=[300_000], if_range=if_range)

        def change(*_):
            behaviour.content, behaviour.etag = CONTENT[::-1], '"two"'

        monkeypatch.setattr(module, "_wait", change)
        assert fetch(behaviour, tmp_path / "a").path.read_bytes() == CONTENT[::-1]

    def test_a_file_that_became_shorter(self, tmp_path, monkeypatch):
        behaviour = Behaviour(CONTENT, cuts=[300_000], if_range=False)

        def change(*_):
            behaviour.content, behaviour.etag = b"short", '"two"'

        monkeypatch.setattr(module, "_wait", change)
        assert fetch(behaviour, tmp_path / "a").path.read_bytes() == b"short"

    def test_a_weak_tag_is_no_proof(self, tmp_path):
        behaviour = Behaviour(CONTENT, cuts=[300_000], etag='W/"one"')
        assert fetch(behaviour, tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole", "whole"]

    def test_a_date_is(self, tmp_path):
        behaviour = Behaviour(CONTENT, cuts=[9], etag=None, modified="Sun, 01 Feb 2026 00:00:00 GMT")
        assert fetch(behaviour, tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole", "bytes=9-"]

    def test_a_cut_chunked_answer_is_noticed(self, tmp_path):
        behaviour = Behaviour(CONTENT, cuts=[300_000], length="chunked")
        assert fetch(behaviour, tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole", "whole"]

    def test_a_connection_that_falls_silent(self, tmp_path, monkeypatch):
        monkeypatch.setattr("SegMateCore.web_source.TIMEOUT_S", 0.2)
        behaviour = Behaviour(CONTENT, cuts=[300_000], stall_s=1.0)
        assert fetch(behaviour, tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole", "bytes=300000-"]

    def test_a_busy_server_is_asked_again(self, tmp_path):
        assert fetch(Behaviour(CONTENT, statuses=[503, 429]), tmp_path / "a").sha256 == SHA256

    def test_the_pauses_grow(self, tmp_path, monkeypatch):
        waited = []
        monkeypatch.setattr(module, "PAUSES_S", (1, 2, 5))
        monkeypatch.setattr(module, "_wait", lambda seconds, cancelled: waited.append(seconds))
        assert "503" in refused(Behaviour(CONTENT, statuses=[503] * 9), tmp_path / "a")
        assert waited == [1, 2, 5]
        assert left(tmp_path) == []

    def test_a_finished_part_is_only_checked(self, tmp_path, monkeypatch):
        def stop(*_):
            raise Cancelled

        behaviour = Behaviour(CONTENT)
        with FileServer(file=behaviour) as server:
            with monkeypatch.context() as patch:
                patch.setattr(module, "check_file", stop)
                with pytest.raises(Cancelled):
                    download(server.url("file"), tmp_path / "a")
            assert download(server.url("file"), tmp_path / "a").sha256 == SHA256
        assert len(behaviour.requests) == 1


class TestRefusals:
    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_what_another_try_would_not_mend(self, tmp_path, status):
        behaviour = Behaviour(CONTENT, statuses=[status] * 9)
        text = refused(behaviour, tmp_path / "a")
        assert str(status) in text and "--import" in text and len(behaviour.requests) == 1

    def test_a_wrong_hash_deletes_the_part(self, tmp_path):
        text = refused(Behaviour(CONTENT), tmp_path / "a", Expected(hash=("md5", "0" * 32)))
        assert MD5 in text and "deleted" in text and left(tmp_path) == []

    def test_a_wrong_size_is_seen_before_a_byte_is_written(self, tmp_path):
        text = refused(Behaviour(CONTENT), tmp_path / "a", Expected(999))
        assert "1000000 bytes, expected 999" in text and left(tmp_path) == []

    def test_a_wrong_size_that_was_not_announced(self, tmp_path):
        behaviour = Behaviour(CONTENT, length="chunked")
        assert "more than the 999" in refused(behaviour, tmp_path / "a", Expected(999))
        assert left(tmp_path) == []
        text = refused(behaviour, tmp_path / "a", Expected(len(CONTENT) + 1))
        assert "1000000 bytes, expected 1000001" in text and left(tmp_path) == []

    def test_a_stream_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "MOST_BYTES", 500_000)
        assert "500000" in refused(Behaviour(CONTENT, length="chunked"), tmp_path / "a")
        assert "1000000" in refused(Behaviour(CONTENT), tmp_path / "a")
        assert "a" not in left(tmp_path)

    def test_nobody_answers(self, tmp_path):
        with pytest.raises(SegMateError, match="cannot reach 127.0.0.1.*4 tries"):
            download("http://127.0.0.1:1/a", tmp_path / "a")

    @pytest.mark.parametrize(
        "url", ["http://example.org/a", "ftp://localhost/a", "file:///etc/passwd", "http://localhost.evil/a"]
    )
    def test_only_https(self, tmp_path, url):
        with pytest.raises(SegMateError, match="expected https"):
            download(url, tmp_path / "a")

    @pytest.mark.parametrize("target", ["http://example.org/a", "file:///etc/passwd", "ftp://example.org/a"])
    def test_redirects_only_to_https(self, tmp_path, target):
        assert "example" in (text := refused(Behaviour(redirect=target), tmp_path / "a")) or "passwd" in text
        assert "https" in text or "redirect" in text.lower()
        assert left(tmp_path) == []

    def test_a_redirect_is_followed_and_keeps_the_range(self, tmp_path):
        end = Behaviour(CONTENT, cuts=[5])
        with FileServer(there=end, here=Behaviour()) as server:
            server.files["/here"].redirect = server.url("there")
            assert download(server.url("here"), tmp_path / "a").sha256 == SHA256
        assert starts(end) == ["whole", "bytes=5-"]

    def test_https_is_taken(self):
        check_address("https://example.org/a")


class TestProxies:
    def test_the_environments_proxy_is_asked(self, tmp_path, monkeypatch):
        behaviour = Behaviour(CONTENT)
        with FileServer(file=behaviour) as server:
            monkeypatch.setenv("http_proxy", server.url(""))
            monkeypatch.setenv("no_proxy", "")
            assert download("http://localhost:1/file", tmp_path / "a").sha256 == SHA256
        assert behaviour.requests[0][0] == "http://localhost:1/file"

    def test_a_proxy_that_refuses_is_named(self, tmp_path, monkeypatch):
        with FileServer() as server:  # which does not know CONNECT
            monkeypatch.setenv("https_proxy", server.url(""))
            monkeypatch.setenv("no_proxy", "")
            with pytest.raises(SegMateError, match="proxy does not lead to example.org"):
                download("https://example.org/file", tmp_path / "a")


class TestDisk:
    def test_a_full_disk_keeps_what_has_come(self, tmp_path, monkeypatch):
        real, room = module._write_all, [400_000]

        def write(stream, piece):
            fits = piece[: room[0]]
            room[0] -= len(fits)
            real(stream, fits)
            if len(fits) < len(piece):
                raise OSError(errno.ENOSPC, "No space left on device")

        behaviour = Behaviour(CONTENT)
        with FileServer(file=behaviour) as server:
            monkeypatch.setattr(module, "_write_all", write)
            with pytest.raises(SegMateError, match=r"No space left.*make room.*0.4 MB are kept"):
                download(server.url("file"), tmp_path / "a")
            assert (tmp_path / "a.part").stat().st_size == 400_000
            room[0] = 10**9
            assert download(server.url("file"), tmp_path / "a").sha256 == SHA256
        assert starts(behaviour) == ["whole", "bytes=400000-"]

    def test_too_little_room_is_said_before(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=900_000))
        text = refused(Behaviour(CONTENT), tmp_path / "a")
        assert "make room" in text and "SEGMATE_MODELS" in text

    def test_a_real_quota(self, tmp_path):
        resource = pytest.importorskip("resource")
        import signal

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
            text = refused(Behaviour(CONTENT), tmp_path / "a")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert "cannot write" in text and (tmp_path / "a.part").stat().st_size == 300_000
        assert (tmp_path / "a.part").read_bytes() == CONTENT[:300_000]

    def test_a_target_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        text = refused(Behaviour(CONTENT), tmp_path / "file" / "a")
        assert "cannot write" in text


def test_cancelling_keeps_what_has_come(tmp_path):
    asked = []
    behaviour = Behaviour(CONTENT)
    with FileServer(file=behaviour) as server:
        url = server.url("file")
        with pytest.raises(Cancelled):
            download(url, tmp_path / "a", progress=lambda *_: asked.append(1), cancelled=lambda: bool(asked))
        size = (tmp_path / "a.part").stat().st_size
        assert 0 < size < len(CONTENT)
        assert download(url, tmp_path / "a").sha256 == SHA256
    assert starts(behaviour) == ["whole", f"bytes={size}-"]


def test_cancelling_ends_a_pause(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (600.0,))
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        fetch(Behaviour(CONTENT, statuses=[503]), tmp_path / "a", cancelled=lambda: next(asked))


def test_check_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-4's example
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert check_file(tmp_path / "a", Expected(3, ("sha256", sha256))).verified
    with pytest.raises(SegMateError, match="3 bytes, expected 4"):
        check_file(tmp_path / "a", Expected(4))
