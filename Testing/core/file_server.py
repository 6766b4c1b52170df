"""A web server on this machine that misbehaves as told: cuts, ignores ranges, changes its file, lies."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server does with `content`.

    cuts: after how many bytes each connection ends, one after another; then none does. ranges: whether Range
    is known, if_range: whether If-Range is. stall_s: how long a cut connection stays open without a word.
    etag: None sends none. statuses: answered before anything else.
    lengths: "true", "chunked" or "none". redirect: where every request is sent. requests: (path, headers).
    """

    content: bytes = b""
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True
    stall_s: float = 0.0
    etag: str | None = '"one"'
    modified: str | None = None
    statuses: list[int] = field(default_factory=list)
    length: str = "true"
    redirect: str = ""
    requests: list[tuple[str, dict]] = field(default_factory=list)


class FileServer:
    """Serves on a free port of 127.0.0.1 within a with block; files: path -> Behaviour."""

    def __init__(self, **files: Behaviour):
        self.files = {f"/{name}": behaviour for name, behaviour in files.items()}
        files_of_server = self.files

        class Handler(_Handler):
            files = files_of_server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    files: dict[str, Behaviour] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path if self.path.startswith("/") else "/" + self.path.rpartition("/")[2]
        behaviour = self.files[path]
        behaviour.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        if behaviour.redirect:
            self._head(302, Location=behaviour.redirect, Content_Length="0")
            return
        if behaviour.statuses:
            self._head(behaviour.statuses.pop(0), Content_Length="0")
            return
        content, start = behaviour.content, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (behaviour.etag, behaviour.modified)
        if asked and behaviour.ranges and (same or not behaviour.if_range):
            start = int(asked[1])
            if start >= len(content):
                self._head(416, Content_Range=f"bytes */{len(content)}", Content_Length="0")
                return
        headers = {"ETag": behaviour.etag, "Last_Modified": behaviour.modified}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if behaviour.length == "true":
            headers["Content_Length"] = str(len(content) - start)
        if behaviour.length == "chunked":
            headers["Transfer_Encoding"] = "chunked"
        self._head(206 if start else 200, **headers)
        self._body(behaviour, content[start:])

    def _body(self, behaviour: Behaviour, rest: bytes) -> None:
        cut = behaviour.cuts.pop(0) if behaviour.cuts else None
        sent = rest if cut is None else rest[:cut]
        if behaviour.length == "chunked":
            self.wfile.write(b"%x\r\n" % len(rest) + sent)
            if cut is None:
                self.wfile.write(b"\r\n0\r\n\r\n")
        else:
            self.wfile.write(sent)
        if cut is not None and behaviour.stall_s:
            self.wfile.flush()
            time.sleep(behaviour.stall_s)

    def _head(self, status: int, **headers: str | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
