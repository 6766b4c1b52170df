"""One file on the web, read from a byte on: over https, through the proxies of the environment.

Takes an address, gives an Answer. Plain http only on this machine itself, redirects only to https. Needs
nothing beyond Python: urllib knows http_proxy, https_proxy, no_proxy and the systems' own settings.
HTTP: RFC 9110, sections 13.1.5 (If-Range), 14 (ranges) and 15.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from SegMateCore.errors import SegMateError
from SegMateCore.version import __version__

TIMEOUT_S = 30.0
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# Request timeout, too early, too many requests, and a server's or a gateway's own troubles.
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 60.0


class PassingTrouble(Exception):
    """Another try may succeed. pause_s: how long the server wants us to wait, 0 where it does not say."""

    def __init__(self, reason: str, pause_s: float = 0.0):
        super().__init__(reason)
        self.pause_s = pause_s


class RangeRefused(Exception):
    """The server has no such range: what is here already is not a beginning of what it has now."""


@dataclass
class Answer:
    """An open response. Use as a context manager.

    start: the byte with which it begins. total: bytes of the whole file, None where the server does not say.
    validator: what If-Range takes to get the rest of the same file later, None where that cannot be told.
    """

    start: int
    total: int | None
    validator: str | None
    _response: http.client.HTTPResponse

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exception) -> None:
        self._response.close()

    def read(self, most: int) -> bytes:
        """Some bytes, as soon as there are any; b"" at the end. Raises PassingTrouble."""
        try:
            return self._response.read1(most)
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise PassingTrouble(f"the connection was lost ({_reason(error)})") from error


def short_address(url: str) -> str:
    """Host and file for a message, without the signatures that redirects carry."""
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"


def check_address(url: str) -> None:
    """Raise SegMateError for anything but https, or http to this machine itself."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS):
        return
    raise SegMateError(
        f'{short_address(url)} is offered by "{parts.scheme}", expected https: nothing was downloaded'
    )


def open_at(url: str, start: int = 0, validator: str | None = None) -> Answer:
    """Ask for the bytes from `start` on, or for all where the file is no longer that of `validator`.

    Raises PassingTrouble, RangeRefused, and SegMateError for what another try would not mend.
    """
    check_address(url)
    headers = {"User-Agent": f"segmate/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator or ""}
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(error, url) from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _of_connection(error, url) from error
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        response.close()
        raise SegMateError(f"{short_address(url)} sends the file encoded, which was not asked for")
    return Answer(*_span(response, start), _validator(response), response)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows only to addresses that would be taken at the start, and never from https to http."""

    def redirect_request(self, request, stream, code, message, headers, new_url):
        check_address(new_url)
        if urlsplit(request.full_url).scheme == "https" and urlsplit(new_url).scheme != "https":
            raise SegMateError(
                f"{short_address(request.full_url)} leads from https to http: nothing was downloaded"
            )
        return super().redirect_request(request, stream, code, message, headers, new_url)


def _span(response: http.client.HTTPResponse, asked: int) -> tuple[int, int | None]:
    """(first byte, bytes of the whole file or None)."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != asked:
        response.close()
        raise RangeRefused
    return asked, None if found[3] == "*" else int(found[3])


def _validator(response: http.client.HTTPResponse) -> str | None:
    """A strong ETag, or the date of the last change; weak ones must not go into If-Range."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    return response.headers.get("Last-Modified") or None


def _of_status(error: urllib.error.HTTPError, url: str) -> Exception:
    if error.code == 416:
        return RangeRefused()
    if error.code in _PASSING_STATUS:
        wait = error.headers.get("Retry-After", "")
        pause_s = min(float(wait), _LONGEST_PAUSE_S) if wait.isdigit() else 0.0
        return PassingTrouble(f"the server answers {error.code} {error.reason}", pause_s)
    return SegMateError(
        f"{short_address(url)}: the server answers {error.code} {error.reason}; update SegMate, or fetch the "
        "file in another way and take it with `segmate download --import FILE`"
    )


def _of_connection(error: Exception, url: str) -> Exception:
    reason = getattr(error, "reason", error)
    host = urlsplit(url).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        return SegMateError(
            f"the certificate of {host} is not trusted here ({reason.verify_message}); behind a proxy that "
            "opens connections, name its certificate in SSL_CERT_FILE"
        )
    if "Tunnel connection failed" in str(reason):
        return SegMateError(f"the proxy does not lead to {host} ({reason}); see https_proxy and no_proxy")
    return PassingTrouble(f"cannot reach {host} ({_reason(error)})")


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    return " ".join(str(getattr(inner, "strerror", None) or inner or type(inner).__name__).split())
