"""Progress of a job: one line that is redrawn on a terminal, one line per minute elsewhere; and Ray's metrics."""

from __future__ import annotations

import logging
import sys
import time

from ray.util.metrics import Counter, Gauge

from aupipe.annotation.progress import redraw

logger = logging.getLogger(__name__)


class Progress:
    """The work done out of a total, reported with rate and time left."""

    def __init__(self, stage: str, total: int, unit: str, shown: bool = True) -> None:
        """Create the progress of a stage that begins now. `shown`: report it, not only to Ray's metrics."""
        self._shown = shown
        self._total = total
        self._done = 0
        self._start = self._reported = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._tags = {"stage": stage, "unit": unit}
        self._done_metric = Counter(
            "aupipe_done", "Units that a stage has completed; the rate is its speed.", tuple(self._tags)
        )
        self._left_metric = Gauge("aupipe_left", "Units that are left for a stage.", tuple(self._tags))
        self._left_metric.set(total, self._tags)

    def add(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self._done += amount
        if amount:
            self._done_metric.inc(amount, self._tags)
        self._left_metric.set(max(self._total - self._done, 0), self._tags)
        now = time.monotonic()
        if now - self._reported >= (1 if self._terminal else 60):
            self._reported = now
            self._report(self._line(now), end="\r")

    def finish(self) -> None:
        """Report the final count and rate."""
        self._left_metric.set(0, self._tags)
        self._report(self._line(time.monotonic()), end="\n")

    def _line(self, now: float) -> str:
        spent = max(now - self._start, 1e-9)
        rate = self._done / spent
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        stage, unit = self._tags["stage"], self._tags["unit"]
        if not self._terminal:  # key=value, so that programs can parse it
            figures = f"done={self._done} total={self._total} unit={unit} rate={rate:.1f}"
            return f"stage={stage} {figures} spent_s={spent:.1f} left_s={left:.0f}"
        line = f"{stage}: {self._done:,} of {self._total:,} {unit}, {rate:.1f} {unit}/s"
        return line + (f", {left:.0f} s left" if self._done < self._total else f", {spent:.1f} s")

    def _report(self, line: str, end: str) -> None:
        if not self._shown:
            return
        if self._terminal:
            redraw(line, end)
        else:
            logger.info(line)
