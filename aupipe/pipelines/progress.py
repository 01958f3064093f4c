"""Progress of a job: on a terminal a line that renews itself, elsewhere a line a minute; and Ray's own metrics."""

from __future__ import annotations

import logging
import sys
import time

from ray.util.metrics import Counter, Gauge

logger = logging.getLogger(__name__)


class Progress:
    """Counts work done out of a total, and reports it with rate and time left."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._total = total
        self._done = 0
        self._start = self._reported = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._tags = {"stage": what, "unit": unit}
        self._counted = Counter("aupipe_done", "What a stage has done; its rate is the speed.", tuple(self._tags))
        self._waiting = Gauge("aupipe_left", "What waits for a stage.", tuple(self._tags))
        self._waiting.set(total, self._tags)

    def add(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self._done += amount
        if amount:
            self._counted.inc(amount, self._tags)
        self._waiting.set(max(self._total - self._done, 0), self._tags)
        now = time.monotonic()
        if now - self._reported >= (1 if self._terminal else 60):
            self._reported = now
            self._report(self._line(now), end="\r")

    def finish(self) -> None:
        """Report the final count and rate."""
        self._waiting.set(0, self._tags)
        self._report(self._line(time.monotonic()), end="\n")

    def _line(self, now: float) -> str:
        spent = max(now - self._start, 1e-9)
        rate = self._done / spent
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        what, unit = self._tags["stage"], self._tags["unit"]
        if not self._terminal:  # for machines, too
            figures = f"done={self._done} total={self._total} unit={unit} rate={rate:.1f}"
            return f"stage={what} {figures} spent_s={spent:.1f} left_s={left:.0f}"
        line = f"{what}: {self._done:,} of {self._total:,} {unit}, {rate:.1f} {unit}/s"
        return line + (f", {left:.0f} s left" if self._done < self._total else f", {spent:.1f} s")

    def _report(self, line: str, end: str) -> None:
        if self._terminal:
            sys.stderr.write(f"\x1b[2K{line}{end}")
            sys.stderr.flush()
        else:
            logger.info(line)
