"""Failed installations are understood from what pip prints, and its resolver keeps what it is told to keep.

The logs are those of the real pip, provoked here, where that is possible.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("host")


def real_pip(*words) -> str:
    """What a failing `pip install` prints where neither pip nor proxies are set up."""
    ignored = ("pip_", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
    env = {name: value for name, value in os.environ.items() if not name.lower().startswith(ignored)}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_RETRIES": "1"}
    command = [sys.executable, "-m", "pip", "install", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)
    assert done.returncode != 0
    return done.stdout + done.stderr


def wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """An empty package."""
    info = f"{name}-{version}.dist-info"
    metadata_text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata_text += f"Requires-Dist: {requires}\n" if requires else ""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata_text)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


NOBODY = "http://127.0.0.1:9"  # the port of the discard service: nobody listens


@pytest.mark.parametrize(
    "words, kinds",
    [
        (["--index-url", f"{NOBODY}/simple"], {"offline"}),
        # Older versions of pip name the proxy here, newer ones only the connection. The advice fits both.
        (["--index-url", "https://index.invalid/simple", "--proxy", NOBODY], {"offline", "proxy"}),
        (["--no-index"], {"no wheel"}),
    ],
)
def test_logs_of_pip_are_understood(words, kinds):
    from SegMateSlicerLib.setup.pip_failures import failure_kind

    log = real_pip(*words, "segmate-no-such-package")
    assert failure_kind(log) in kinds, log


def test_a_proxy_that_wants_a_password_is_understood():
    from SegMateSlicerLib.setup.pip_failures import failure_kind

    class StrictProxy(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            self.send_error(407)

        def log_message(self, *_):
            """Nothing on the console."""

    with HTTPServer(("127.0.0.1", 0), StrictProxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = f"http://127.0.0.1:{server.server_port}"
        log = real_pip("--index-url", "https://index.invalid/simple", "--proxy", proxy, "segmate-no-package")
        server.shutdown()
    assert failure_kind(log) == "proxy", log


def test_a_conflict_with_slicers_versions_is_understood(tmp_path):
    from SegMateSlicerLib.setup.pip_failures import failure_kind

    wheel(tmp_path, "toyengine", "1.0", requires="toyarrays>=9")
    wheel(tmp_path, "toyarrays", "9.0")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("toyarrays==2.1\n")
    log = real_pip("--no-index", "--find-links", tmp_path, "-c", constraints, "toyengine")
    assert failure_kind(log) == "conflict", log


@pytest.mark.parametrize(
    "line, kind",
    [
        ("OSError: [WinError 112] There is not enough space on the disk", "no space"),
        ("SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate')", "certificate"),
        ("NewConnectionError('[Errno 11001] getaddrinfo failed')", "offline"),
        ("ERROR: Could not install packages: [WinError 5] Access is denied: 'onnxruntime.dll'", "no access"),
    ],
)
def test_lines_that_cannot_be_provoked_here_are_understood(line, kind):
    from SegMateSlicerLib.setup.pip_failures import failure_kind

    assert failure_kind(f"Collecting onnxruntime\n{line}\n") == kind


def test_an_unknown_failure_is_quoted():
    from SegMateSlicerLib.setup.pip_failures import explain_failure

    text = explain_failure("timm", "Collecting timm\nERROR: the moon is full\n[notice] a new pip is there\n")
    assert text.startswith("timm could not be installed: the moon is full. The log")
    assert "pip gave no reason" in explain_failure("timm", "")


def test_the_constraints_keep_pip_from_replacing_packages(tmp_path):
    """The real resolver, asked to upgrade everything, leaves numpy with our file and takes it without."""
    from SegMateSlicerLib.setup.pip_session import kept_versions

    wheel(tmp_path, "toyengine", "1.0", requires="numpy")
    wheel(tmp_path, "numpy", "99.0")

    def to_install(*words) -> set[str]:
        command = ["install", "--dry-run", "--quiet", "--report", "-", "--no-index", "--find-links", tmp_path]
        command += ["--upgrade", "--upgrade-strategy", "eager", *words, "toyengine"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *map(str, command)], capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return {item["metadata"]["name"] for item in json.loads(done.stdout)["install"]}

    with kept_versions() as constraints:
        assert to_install("-c", constraints) == {"toyengine"}
    assert not constraints.exists()
    assert to_install() == {"toyengine", "numpy"}
