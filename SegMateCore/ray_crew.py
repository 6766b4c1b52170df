"""The workers of a Ray cluster at work: who holds which case, and what happens when one of them dies.

Each worker is an actor that has opened the checkpoint and holds at most a few cases, so that however many
cases there are, few are outstanding. A dead worker is replaced by a new one; its cases come back to be tried
again, and then alone, so that a case that kills its worker is not counted against its neighbours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType

from SegMateCore.batch import FAILED, CaseResult, Choices, Outputs
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.input_cases import Case
from SegMateCore.opening import Opening
from SegMateCore.ray_cluster import Places
from SegMateCore.ray_worker import CaseWorker, WorkerFacts
from SegMateCore.version import __version__

# Workers that die one after another before they are ready would do so for ever.
_MOST_DEATHS_AT_OPENING = 5
_PATIENCE_S = 60.0


@dataclass
class Task:
    """A case on its way. attempts: how often it was given to a worker. error: why it came back."""

    case: Case
    outputs: Outputs
    attempts: int = 0
    error: str = ""

    def settled(self, result: CaseResult) -> CaseResult:
        """A worker's result, as it is told here."""
        return replace(result, case=self.case, attempts=self.attempts)


@dataclass(eq=False)
class _Worker:
    actor: object
    facts: WorkerFacts | None = None  # known once the checkpoint is open there
    held: list[Task] = field(default_factory=list)
    dead: bool = False

    @property
    def is_alone_with_one(self) -> bool:
        return any(task.attempts > 1 for task in self.held)


class Crew:
    """Workers at `places` of a connected cluster.

    at_once: cases that each of them holds. retries: how often a case is tried again.
    """

    def __init__(
        self, ray: ModuleType, places: Places, opening: Opening, choices: Choices, at_once: int, retries: int
    ):
        self._ray = ray
        self._choices = choices
        self._at_once = at_once
        self._retries = retries
        self._opening = replace(opening.elsewhere(), threads=opening.threads or places.cpus)
        self._actor_class = ray.remote(CaseWorker).options(
            num_cpus=places.cpus, num_gpus=places.gpus, max_restarts=0, max_task_retries=0,
            max_concurrency=at_once + 1,  # one thread is there to hear of stop()
        )  # fmt: skip
        self._deaths_at_opening = 0
        self._pending: dict[object, tuple[_Worker, Task | None]] = {}
        self._workers: list[_Worker] = []
        for _ in range(places.workers):
            self._hire()

    @property
    def facts(self) -> list[WorkerFacts]:
        """Of the workers that are ready."""
        return [worker.facts for worker in self._workers if worker.facts is not None]

    @property
    def is_busy(self) -> bool:
        """Whether any case is with a worker."""
        return any(worker.held for worker in self._workers)

    def give(self, task: Task) -> bool:
        """Hand a case to the ready worker that holds the fewest; False where none has room for it."""
        limit = 1 if task.attempts else self._at_once
        able = [
            worker
            for worker in self._workers
            if worker.facts is not None and len(worker.held) < limit and not worker.is_alone_with_one
        ]
        if not able:
            return False
        worker = min(able, key=lambda worker: len(worker.held))
        task.attempts += 1
        worker.held.append(task)
        sent = worker.actor.segment.remote(_elsewhere(task.case), task.outputs.elsewhere(), self._choices)
        self._pend(worker, task, sent)
        return True

    def wait(self, seconds: float) -> list[tuple[Task, CaseResult | None]]:
        """What has ended within that time: cases with their result, or None for those to be tried again.

        Raises SegMateError where the checkpoint cannot be opened, Cancelled after stop().
        """
        if not self._pending:
            return []
        ended, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        outcomes = []
        for ref in dict.fromkeys([*ended, *more]):
            worker, task = self._pending.pop(ref)
            if task is None:
                self._welcome(worker, ref)
            else:
                worker.held.remove(task)
                outcomes.append((task, self._result(worker, task, ref)))
        return outcomes

    def stop(self) -> list[CaseResult]:
        """Ask all to end, and give the cases that were finished by then."""
        for worker in self._workers:
            worker.actor.stop.remote()
        refs = {ref: task for ref, (_, task) in self._pending.items() if task is not None}
        self._pending.clear()
        ended = self._ray.wait(list(refs), num_returns=len(refs), timeout=_PATIENCE_S)[0] if refs else []
        finished = []
        for ref in ended:
            try:
                finished.append(refs[ref].settled(self._ray.get(ref)))
            except (self._ray.exceptions.RayError, Cancelled):
                continue  # it ended without a result, as it was asked to
        return finished

    def close(self) -> None:
        """Ends every worker at once, whatever it does."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._pending.clear()

    @cached_property
    def _weights_sha256(self) -> str:
        """Of the checkpoint, as it is found here."""
        return self._opening.document().weights_sha256

    def _hire(self) -> None:
        worker = _Worker(self._actor_class.remote())
        self._workers.append(worker)
        self._pend(worker, None, worker.actor.open.remote(self._opening))

    def _pend(self, worker: _Worker, task: Task | None, ref: object) -> None:
        self._pending[ref] = (worker, task)

    def _welcome(self, worker: _Worker, ref: object) -> None:
        """A worker has opened the checkpoint, or could not."""
        try:
            facts = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise SegMateError(f"a worker cannot open the checkpoint: {cause(error)}") from error
        except self._ray.exceptions.RayError as error:
            self._deaths_at_opening += 1
            if self._deaths_at_opening >= _MOST_DEATHS_AT_OPENING:
                raise SegMateError(
                    f"{_MOST_DEATHS_AT_OPENING} workers in a row died while they opened the checkpoint, the"
                    f" last: {one_line(error)}; is there enough memory for each? Fewer workers"
                    " (--ray-workers) need less"
                ) from error
            self._replace(worker)
            return
        if facts.version != __version__:
            raise SegMateError(
                f"{facts.name} runs segmate-core {facts.version}, this machine {__version__}: install the"
                " same on both, results of two versions are not to be mixed"
            )
        if facts.weights_sha256 != self._weights_sha256:
            raise SegMateError(
                f"{facts.name} has other weights than this machine for the checkpoint"
                f" {self._opening.checkpoint}: install the same on both, or give a file that both of them see"
            )
        self._deaths_at_opening = 0
        worker.facts = facts

    def _result(self, worker: _Worker, task: Task, ref: object) -> CaseResult | None:
        try:
            return task.settled(self._ray.get(ref))
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Cancelled):
                raise Cancelled("cancelled: the finished cases are kept") from error
            task.error = cause(error)
        except self._ray.exceptions.RayError as error:
            task.error = f"its worker died: {one_line(error)}"
            self._replace(worker)
        if task.attempts <= self._retries:
            return None
        name = worker.facts.name
        text = f"{task.error} (attempt {task.attempts} of {self._retries + 1})"
        return CaseResult(task.case, FAILED, error=text, attempts=task.attempts, worker=name)

    def _replace(self, worker: _Worker) -> None:
        """Each of its cases says so that a worker died: only the first is news."""
        if not worker.dead:
            worker.dead = True
            self._workers.remove(worker)
            self._ray.kill(worker.actor)
            self._hire()


def _elsewhere(case: Case) -> Case:
    """The same for a process in another folder; links are left to it."""
    return replace(case, source=Path(os.path.abspath(case.source)))


def cause(error) -> str:
    """What a worker's exception (a RayTaskError) says, without the traceback that Ray puts around it."""
    inner = error.cause
    text = str(inner) if isinstance(inner, SegMateError) else f"{type(inner).__name__}: {inner}"
    return " ".join(text.split())


def one_line(error: Exception) -> str:
    """The first words of Ray's explanations, which go on for a page."""
    return " ".join(str(error).split())[:160]
