"""What the panel asks the worker besides segmenting: which engines and devices there are."""

from __future__ import annotations

from collections.abc import Generator

from SegMateSlicerLib.runs.task import WAITING, Task
from SegMateSlicerLib.worker.warm_worker import PROTOCOL, WarmWorker


class InfoTask(Task):
    """Gives the worker's answer to hello; devices: with the list of devices, which takes seconds."""

    def __init__(self, worker: WarmWorker, devices: bool):
        super().__init__()
        self._worker = worker
        self._devices = devices
        self._info: dict = {}

    def result(self) -> dict:
        super().result()
        return self._info

    def work(self) -> Generator[str, None, None]:
        reply = self._worker.start()
        if self._devices:
            folder = str(self._worker.folder)
            reply = self._worker.ask("hello", protocol=PROTOCOL, folder=folder, devices=True)
        while not reply.is_done:
            yield WAITING
            self._worker.pump()
        if reply.error is not None:
            raise reply.error
        self._info = dict(reply.result)
