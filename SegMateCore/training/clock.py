"""How long a run has taken over all its interruptions, how fast it is, when its next resume point is due."""

from __future__ import annotations

import time


class Clock:
    """Seconds of the whole run, those before an interruption included; and when the last resume point was."""

    def __init__(self, seconds_before: float, first_step: int):
        self._before, self._first = seconds_before, first_step
        self._started = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def is_due(self, minutes: float) -> bool:
        return time.monotonic() - self._saved >= 60 * minutes

    def saved(self) -> None:
        self._saved = time.monotonic()

    def figures(self, step: int, data_seconds: float, batch: int) -> dict:
        """Speed since this process began; data_share: of it, waiting for batches."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        per_second = (step - self._first) / seconds
        return {
            "steps_per_s": round(per_second, 3),
            "slices_per_s": round(per_second * batch, 1),
            "data_share": round(data_seconds / seconds, 3),
            "seconds": round(self.seconds, 1),
        }
