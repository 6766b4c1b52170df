"""Many segmentations, one after the other on the warm worker: what the scene, a sequence or a folder holds.

Takes BatchCases, gives a BatchSummary. A case that fails is listed with its reason and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from slicer.i18n import tr as _

from SegMateCore.errors import Cancelled, SegMateError
from SegMateSlicerLib.runs.run_progress import RunProgress
from SegMateSlicerLib.runs.segment_run import SegmentRequest, SegmentRun
from SegMateSlicerLib.runs.task import WAITING, WORKING, Task


@dataclass
class BatchSummary:
    """done: names of cases; skipped, failed: names and reasons; nodes: what stays in the scene."""

    done: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    nodes: list = field(default_factory=list)

    def __str__(self) -> str:
        text = _("{done} done, {skipped} skipped, {failed} failed").format(
            done=len(self.done), skipped=len(self.skipped), failed=len(self.failed)
        )
        return "\n".join([text, *(f"{name}: {reason}" for name, reason in self.failed)])


class BatchCase(Protocol):
    """One case of a batch. Each of these may raise SegMateError, which fails the case."""

    name: str

    def reason_to_skip(self) -> str | None: ...

    def open(self) -> SegmentRequest: ...

    def keep(self, run: SegmentRun, summary: BatchSummary) -> None: ...

    def close(self) -> None: ...

    def finish(self) -> None:
        """Called for every case at the end of the batch, whatever that is."""


class BatchRun(Task):
    """See Task for state, error, progress, cancel() and step(). Failed cases do not fail it.

    start_run(request, onProgress) makes a SegmentRun.
    """

    def __init__(
        self, cases: Sequence[BatchCase], start_run: Callable, onProgress: Callable | None = None,
        onEnd: Callable | None = None,
    ):  # fmt: skip
        super().__init__(onProgress, onEnd)
        self.cases = list(cases)
        self.summary = BatchSummary()
        self.warnings: list[str] = []
        self._start_run = start_run
        self._run: SegmentRun | None = None
        self._case: BatchCase | None = None

    @property
    def segmentationNode(self):
        """The last segmentation that was made in the scene."""
        return self.summary.nodes[-1] if self.summary.nodes else None

    @property
    def tableNode(self):
        """Of the case under way or of the last one."""
        return self._run.tableNode if self._run is not None else None

    def result(self) -> BatchSummary:
        """Raises Cancelled for a batch that was cancelled; `summary` has what was finished."""
        super().result()
        return self.summary

    def cancel(self) -> None:
        self.abort(Cancelled(_("cancelled: the finished cases are kept")))

    def work(self) -> Generator[str, None, None]:
        for number, case in enumerate(self.cases):
            yield WORKING
            try:
                reason = case.reason_to_skip()
                if reason is not None:
                    self.summary.skipped.append((case.name, reason))
                    continue
                yield from self._segment(case, number)
            except Exception as error:  # whatever is wrong with this case, the others still want their turn
                if isinstance(error, Cancelled) and self._reason is not None:
                    raise
                self._note_failure(case, error)
        self.report(RunProgress("end", 1.0, str(self.summary).partition("\n")[0]))

    def _segment(self, case: BatchCase, number: int) -> Generator[str, None, None]:
        self._case, self._run = case, None
        try:
            request = case.open()
            yield WORKING
            self._run = self._start_run(request, lambda progress: self._tell(case, number, progress))
            while self._run.step():
                yield WAITING if self._run.is_waiting else WORKING
            self._keep(case)
        finally:
            # A case whose run still has to stop is closed when that has happened.
            if self._run is None or self._run.is_over:
                self._close_case()

    def _keep(self, case: BatchCase) -> None:
        self._run.result()
        case.keep(self._run, self.summary)
        self.warnings += [f"{case.name}: {text}" for text in self._run.warnings]
        self.summary.done.append(case.name)

    def _note_failure(self, case: BatchCase, error: Exception) -> None:
        known = isinstance(error, (SegMateError, Cancelled))
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        self.summary.failed.append((case.name, reason))

    def stop(self) -> None:
        if self._run is not None:
            self._run.cancel()

    def has_stopped(self) -> bool:
        if self._run is not None and self._run.step():
            return False
        # A run whose segments were in the scene already has ended well.
        if self._case is not None and self._run is not None and self._run.state == "done":
            try:
                self._keep(self._case)
            except Exception as error:
                self._note_failure(self._case, error)
        return True

    def clean(self) -> None:
        self._close_case()
        for case in self.cases:
            case.finish()

    def _close_case(self) -> None:
        case, self._case = self._case, None
        if case is not None:
            case.close()

    def _tell(self, case: BatchCase, number: int, progress: RunProgress) -> None:
        count = len(self.cases)
        text = _("{name} ({number} of {count}): {text}").format(
            name=case.name, number=number + 1, count=count, text=progress.text
        )
        fraction = (number + progress.fraction) / count
        self.report(RunProgress(progress.stage, fraction, text, progress.slices_per_s, progress.eta_s))
