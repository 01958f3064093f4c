"""Progress of a job: on a terminal a line that renews itself, elsewhere a line a minute."""

from __future__ import annotations

import logging
import sys
import time

logger = logging.getLogger(__name__)


class Progress:
    """Counts work done out of a total, and reports it with rate and time left."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._start = self._reported = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def add(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self._done += amount
        now = time.monotonic()
        if now - self._reported >= (1 if self._terminal else 60):
            self._reported = now
            self._report(self._line(now), end="\r")

    def finish(self) -> None:
        """Report the final count and rate."""
        self._report(self._line(time.monotonic()), end="\n")

    def _line(self, now: float) -> str:
        spent = max(now - self._start, 1e-9)
        rate = self._done / spent
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        line = f"{self._what}: {self._done:,} of {self._total:,} {self._unit}, {rate:.1f} {self._unit}/s"
        return line + (f", {left:.0f} s left" if self._done < self._total else f", {spent:.1f} s")

    def _report(self, line: str, end: str) -> None:
        if self._terminal:
            sys.stderr.write(f"\x1b[2K{line}{end}")
            sys.stderr.flush()
        else:
            logger.info(line)
