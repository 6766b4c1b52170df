"""A download of a public model in a process of its own: the command `segmate download NAME --json`.

Takes a name, gives progress and an end; nothing here blocks. Whatever ends the process, what has come stays
on the disk, and the next download of this model goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from slicer.i18n import tr as _

from SegMateSlicerLib.core_path import core_folder
from SegMateSlicerLib.worker.exit_words import describe_exit
from SegMateSlicerLib.worker.worker_process import WorkerDied, WorkerProcess, python_executable

# As worker_process.py starts the worker, for the same reason.
_START = (
    "import sys; sys.path[0] = sys.argv[1]; import SegMateCore; del sys.path[0];"
    " from SegMateCore.cli import main; sys.exit(main(sys.argv[2:]))"
)
_PREFIX = "segmate: "


def download_command(name: str) -> list[str]:
    """For a model whose licence the user has accepted."""
    words = ["download", name, "--accept-licence", "--json"]
    return [python_executable(), "-c", _START, str(core_folder()), *words]


class ModelDownload:
    """One download, from start() to is_done or stop(). For one thread.

    progress: (stage, done, total), the latest; sizes are in MB. error: why it failed, "" where it did not.
    path: the new file. unverified: hashes (SHA-256) of files for which nobody publishes one.
    """

    def __init__(self, name: str, command: Sequence[str] | None = None):
        self.name = name
        self.progress = ("", 0, 0)
        self.is_done = False
        self.error = ""
        self.path = ""
        self.unverified: list[str] = []
        self._process = WorkerProcess(command or download_command(name))

    def start(self) -> None:
        """Returns at once."""
        try:
            self._process.start()
        except WorkerDied as error:
            self._end(str(error))

    def listen(self) -> None:
        """Take what has come since the last call."""
        for message in self._process.messages():
            if "stage" in message:
                self.progress = (message["stage"], message["done"], message["total"])
            elif "path" in message:
                self.path = message["path"]
                sources = message["record"].get("sources", [])
                self.unverified = [s["sha256"] for s in sources if "url" in s and not s["verified"]]
            elif message.get("event") == "died":
                self._end("" if self.path else self._why(message["exit_code"]))

    def stop(self) -> None:
        """End it now."""
        self._process.kill()
        self.is_done = True

    def _why(self, exit_code: int) -> str:
        lines = [line for line in self._process.log if line.startswith(_PREFIX)]
        if lines:
            return lines[-1].removeprefix(_PREFIX)
        return _("The download {how}").format(how=describe_exit(exit_code, list(self._process.log)))

    def _end(self, error: str) -> None:
        self.error = error
        self.stop()
