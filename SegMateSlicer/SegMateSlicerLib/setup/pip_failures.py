"""What a failed installation of Python packages means, and what the user can do about it.

Takes the log that pip wrote, gives one plain text.
"""

from __future__ import annotations

from slicer.i18n import tr as _

NO_SPACE, PROXY, CERTIFICATE, OFFLINE = "no space", "proxy", "certificate", "offline"
CONFLICT, NO_WHEEL, NO_ACCESS, UNKNOWN = "conflict", "no wheel", "no access", "unknown"

# In this order: a log of an offline machine also says that there is no matching distribution, for example.
_SIGNS = (
    (NO_SPACE, ("no space left on device", "errno 28", "not enough space on the disk", "winerror 112")),
    (PROXY, ("proxyerror", "cannot connect to proxy", "proxy authentication", "tunnel connection failed")),
    (CERTIFICATE, ("certificate_verify_failed", "certificate verify failed", "sslerror")),
    (
        OFFLINE,
        (
            "failed to establish a new connection",
            "getaddrinfo failed",
            "name or service not known",
            "temporary failure in name resolution",
            "network is unreachable",
            "connecttimeouterror",
            "read timed out",
            "connection refused",
            "connection aborted",
            "connection reset",
        ),
    ),
    (CONFLICT, ("resolutionimpossible", "conflicting dependencies")),
    (NO_WHEEL, ("no matching distribution found", "is not a supported wheel", "could not find a version")),
    (
        NO_ACCESS,
        ("permission denied", "access is denied", "winerror 5]", "winerror 32]", "read-only file system"),
    ),
)


def failure_kind(log: str) -> str:
    """One of this file's constants; UNKNOWN where no line is a known sign."""
    text = log.lower()
    return next((kind for kind, signs in _SIGNS if any(sign in text for sign in signs)), UNKNOWN)


def explain_failure(package: str, log: str) -> str:
    """Why `package` could not be installed and what to do: one line."""
    kind = failure_kind(log)
    advice = {
        NO_SPACE: _("the disk is full. Free some space and try again."),
        PROXY: _(
            "the network's proxy refused the connection. Set the environment variable HTTPS_PROXY, such as"
            " http://user:password@proxy:8080, start Slicer again and try again."
        ),
        CERTIFICATE: _(
            "the connection's certificate was not accepted, as happens where a company inspects connections."
            " Give pip the company's certificate: PythonSlicer -m pip config set global.cert FILE.pem."
        ),
        OFFLINE: _(
            "the package index could not be reached. Check the internet connection and HTTPS_PROXY. Without"
            " internet, bring the packages in a folder:"
            " PythonSlicer -m pip install --no-index --find-links FOLDER PACKAGE."
        ),
        CONFLICT: _(
            "it needs other versions of packages that Slicer and other extensions use, and SegMate leaves"
            " those as they are. Install the newest Slicer."
        ),
        NO_WHEEL: _(
            "the package index has none for this computer and this version of Slicer. SegMate needs Slicer"
            " 5.12 or later on 64-bit Windows, macOS or Linux."
        ),
        NO_ACCESS: _(
            "files could not be written, because they are in use or protected. Restart Slicer and install"
            " before anything else, or use a Slicer in a folder of your own."
        ),
        UNKNOWN: _("{last_line} The log in Slicer's Python console has the details.").format(
            last_line=_last_error(log)
        ),
    }[kind]
    return _("{package} could not be installed: {advice}").format(package=package, advice=advice)


def _last_error(log: str) -> str:
    """pip's last line that starts with ERROR, else its last line, as a sentence."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or [_("pip gave no reason")])[-1]
    return last if last.endswith(".") else last + "."
