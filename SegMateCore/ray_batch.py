"""From cases to files on a Ray cluster: as run_batch of batch.py, with workers on many machines.

Takes what opens the Predictor, Cases and where their results go; gives a CaseResult for each. Inputs, outputs
and the checkpoint are files on storage that every machine sees under the same path.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from SegMateCore.batch import FAILED, SKIPPED, CaseResult, Choices, Outputs, reason
from SegMateCore.errors import Cancelled
from SegMateCore.input_cases import Case
from SegMateCore.opening import Opening
from SegMateCore.predict_options import Progress, report
from SegMateCore.ray_cluster import Cluster, connected, places
from SegMateCore.ray_crew import Crew, Task

# How soon a cancellation is heard.
_POLL_S = 0.5
# Skipping finished cases is to leave the workers no time to fall idle.
_LONGEST_SKIPPING_S = 0.2


def run_ray_batch(
    opening: Opening,
    work: Sequence[tuple[Case, Outputs]],
    choices: Choices,
    is_finished: Callable[[Case, Outputs], bool],
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[CaseResult]:
    """Segment cases on the workers of a cluster and give each one's result as it comes.

    is_finished: as for run_batch; asked here, before a case is handed out. progress: hears "workers" and
    "cases". Raises SegMateError where the cluster or the checkpoint cannot be used, Cancelled; results of
    cases that were finished by then are given before.
    """
    cluster = cluster or Cluster()
    with connected(cluster) as ray:
        asked = places(ray, cluster, opening.device)
        crew = Crew(ray, asked, opening, choices, cluster.cases_at_once, cluster.retries)
        try:
            yield from _schedule(crew, work, is_finished, progress, cancelled or (lambda: False))
        except GeneratorExit:
            crew.stop()
            raise
        finally:
            crew.close()


def _schedule(
    crew: Crew,
    work: Sequence[tuple[Case, Outputs]],
    is_finished: Callable[[Case, Outputs], bool],
    progress: Progress | None,
    cancelled: Callable[[], bool],
) -> Iterator[CaseResult]:
    """Hand out what there is room for, wait for what ends, until nothing is left."""
    again: deque[Task] = deque()
    source = _Source(work, is_finished)
    finished = 0
    while again or crew.is_busy or not source.is_empty:
        if cancelled():
            yield from crew.stop()
            raise Cancelled("cancelled: the finished cases are kept")
        results = []
        # Cases to be tried again go first, and wait for a worker that has nothing else to do.
        while again and crew.give(again[0]):
            again.popleft()
        if not again:
            results += source.hand_out(crew)
        for task, result in crew.wait(0 if results else _POLL_S):
            if result is None:
                again.append(task)
            else:
                results.append(result)
        finished += len(results)
        if crew.facts:
            report(progress, "cases", finished, len(work))
        else:
            report(progress, "workers", 0, 1)
        yield from results


class _Source:
    """The cases that no worker has had yet, one of them in the hand."""

    def __init__(
        self, work: Sequence[tuple[Case, Outputs]], is_finished: Callable[[Case, Outputs], bool]
    ):
        self._work = iter(work)
        self._is_finished = is_finished
        self._next: Task | None = None
        self.is_empty = not work

    def hand_out(self, crew: Crew) -> list[CaseResult]:
        """Give cases to workers that have room; the results of those that need no worker."""
        settled = []
        until = time.monotonic() + _LONGEST_SKIPPING_S
        while not self.is_empty and time.monotonic() < until:
            if self._next is None:
                result = self._take()
                if result is not None:
                    settled.append(result)
                continue
            if not crew.give(self._next):
                break
            self._next = None
        return settled

    def _take(self) -> CaseResult | None:
        """Take the next case in the hand, unless it has its result already."""
        item = next(self._work, None)
        if item is None:
            self.is_empty = True
            return None
        case, outputs = item
        try:
            if self._is_finished(case, outputs):
                return CaseResult(case, SKIPPED, attempts=0)
        except Exception as error:  # whatever is wrong with this case, the others still want their turn
            return CaseResult(case, FAILED, error=reason(error))
        self._next = Task(case, outputs)
        return None
