"""`segmate predict` of many CTs: here, a share of them, or on a Ray cluster.

Takes the parsed command line and what goes where, gives an exit code. Keeps the log of cases and the table of
statistics up to date as results come.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from SegMateCore.batch import CASES_AT_ONCE, FAILED, SKIPPED, CaseResult, Outputs, run_batch
from SegMateCore.case_log import CaseLog
from SegMateCore.case_share import Share
from SegMateCore.case_table import CaseTable
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.commands.many_arguments import cluster
from SegMateCore.commands.predict_opening import announce, announcing, choices_for, opened, opening
from SegMateCore.console import ProgressLine, duration, interruptible, note
from SegMateCore.finished import is_finished
from SegMateCore.input_cases import Case

Work = list[tuple[Case, Outputs]]
LOG_NAME = "cases.jsonl"
# More failures are in the log.
_MOST_FAILURES_TOLD = 20


def segment_many(arguments: argparse.Namespace, work: Work) -> int:
    """Exit code 0, or 1 when some cases failed. Raises SegMateError, Cancelled."""
    log_path = arguments.log or arguments.output / LOG_NAME
    table_path = arguments.statistics
    if arguments.share is not None:
        share = Share.parse(arguments.share)
        work = [item for item in work if item[0] in share]
        log_path = share.name_for(log_path)
        table_path = None if table_path is None else share.name_for(table_path)
    table = None if table_path is None else CaseTable.read(table_path)
    tally = _Tally(arguments.quiet, len(work), log_path)
    with interruptible() as asked, CaseLog(log_path) as log, ProgressLine(arguments.quiet) as progress:
        segment = _here if arguments.ray is None else _on_ray
        results = segment(arguments, work, table, progress, asked.is_set)
        try:
            for result in results:
                if table is not None and result.status not in (SKIPPED, FAILED):
                    table.replace(result.case.name, result.statistics, result.provenance)
                    table.write_when_due()
                log.add(result)
                tally.add(result, progress)
        finally:
            if table is not None and tally.count:
                table.write()
    return tally.end()


def _here(
    arguments: argparse.Namespace, work: Work, table: CaseTable | None, progress: ProgressLine,
    cancelled: Callable[[], bool],
) -> Iterator[CaseResult]:
    """In this process."""
    cluster(arguments)  # refuses what is about Ray alone
    if not work:
        return iter(())
    predictor, choices = opened(arguments)

    def begun(case: Case) -> None:
        progress.prefix = f"{case.name}: "

    needs_nothing = _needs_nothing(arguments, predictor.checkpoint, choices, table)
    report = announcing(progress, predictor, arguments.quiet)
    at_once = CASES_AT_ONCE if arguments.cases_at_once is None else arguments.cases_at_once
    return run_batch(predictor, work, choices, needs_nothing, report, cancelled, at_once, begun)


def _on_ray(
    arguments: argparse.Namespace, work: Work, table: CaseTable | None, progress: ProgressLine,
    cancelled: Callable[[], bool],
) -> Iterator[CaseResult]:
    """On the workers of a Ray cluster."""
    from SegMateCore.ray_batch import run_ray_batch

    where, words = cluster(arguments), opening(arguments)
    checkpoint = words.document()
    choices = choices_for(arguments, checkpoint)
    announce(checkpoint, f"Ray ({where.address or 'this machine, or $RAY_ADDRESS'})", arguments.quiet)
    needs_nothing = _needs_nothing(arguments, checkpoint, choices, table)
    return run_ray_batch(words, work, choices, needs_nothing, where, progress, cancelled)


def _needs_nothing(
    arguments: argparse.Namespace, checkpoint: Checkpoint, choices, table: CaseTable | None
) -> Callable[[Case, Outputs], bool]:
    organs = choices.organ_set(checkpoint)

    def needs_nothing(case: Case, outputs: Outputs) -> bool:
        if arguments.overwrite:
            return False
        affine_source = case.affine_source or choices.affine_source
        done = is_finished(outputs, checkpoint, organs, choices.options, affine_source, case.source)
        return done and (table is None or case.name in table)

    return needs_nothing


class _Tally:
    """What became of the cases, told as they end and at the end. log: where all of it can be read."""

    def __init__(self, quiet: bool, total: int, log: Path):
        self.quiet = quiet
        self.total = total
        self.log = log
        self.count = 0
        self.statuses = {"done": 0, SKIPPED: 0, FAILED: 0}
        self.failures: list[CaseResult] = []

    def add(self, result: CaseResult, progress: ProgressLine) -> None:
        """A line for each case; warnings even when quiet."""
        self.count += 1
        self.statuses[result.status] += 1
        name = result.case.name
        for warning in result.warnings:
            progress.above(f"segmate: warning: {name}: {warning}")
        if result.status == FAILED:
            self.failures.append(result)
        if not self.quiet:
            took = f" in {duration(result.seconds)}" if result.status == "done" else ""
            again = f" (attempt {result.attempts})" if result.attempts > 1 else ""
            progress.above(f"[{self.count}/{self.total}] {name}: {result.status}{took}{again}")

    def end(self) -> int:
        """The sums, and what went wrong; the exit code."""
        if not self.quiet or self.failures:
            done, skipped, failed = self.statuses.values()
            note(f"{done} done, {skipped} already finished, {failed} failed")
        for result in self.failures[:_MOST_FAILURES_TOLD]:
            note(f"segmate: {result.case.name} failed: {result.error}")
        if len(self.failures) > _MOST_FAILURES_TOLD:
            note(f"segmate: and {len(self.failures) - _MOST_FAILURES_TOLD} more: {self.log}")
        return 1 if self.failures else 0
