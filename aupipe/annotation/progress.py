"""The progress of a job: one line that is redrawn on a terminal, one line per minute elsewhere; and the work of stages.

All runners report it, because the driver counts the results that they return.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

_TERMINAL_S, _LOG_S = 1.0, 60.0  # from one line to the next
_ADVISED_FROM_S = 60.0  # work of encoders, which is too little before to judge their number


@dataclass
class StageWork:
    """The seconds of work of each stage.

    Attributes:
        workers: of processes that run all stages, or all but `encode`.
        encoders: of processes that only encode.
        frames: number of extracted frames.
    """

    workers: Counter[str] = field(default_factory=Counter)
    encoders: Counter[str] = field(default_factory=Counter)
    frames: int = 0

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each stage."""
        return dict(self.workers + self.encoders)

    def bound_by(self, workers: int, encoders: int) -> str:
        """Return the stage with the most work of the processes that were busiest; "" if there was no work.

        Args:
            workers, encoders: number of such processes; 0 encoders: workers do their work.
        """
        if not encoders:
            busiest = self.workers + self.encoders
        else:
            busiest = self.encoders if self._encoders_are_busier(workers, encoders) else self.workers
        return busiest.most_common(1)[0][0] if busiest else ""

    def better_encoders(self, workers: int, encoders: int) -> int | None:
        """Return the number of encoders at which as many processes would be equally busy.

        None: it is not larger than `encoders`, or there was too little work to tell.
        """
        busy_s = self.encoders.total()
        if not encoders or busy_s < _ADVISED_FROM_S or not self._encoders_are_busier(workers, encoders):
            return None
        better = round((workers + encoders) * busy_s / (busy_s + self.workers.total()))
        return better if better > encoders else None

    def _encoders_are_busier(self, workers: int, encoders: int) -> bool:
        return self.encoders.total() / encoders > self.workers.total() / workers


class JobProgress:
    """The counts of a job, which it shows while they grow.

    Attributes:
        work: of each stage.
    """

    def __init__(self, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        """Create the progress of a job that begins now. `shown`: print it."""
        self.work = StageWork()
        self._shown, self._clock, self._terminal = shown, clock, sys.stderr.isatty()
        self._inputs = self._probed = self._videos = self._done = self._known = self._estimated = 0
        self._counted = (0, 0)  # frames of small files: their estimate, and their number
        self._quarantined: Counter[str] = Counter()
        self._start = self._drawn = clock()

    def expect_inputs(self, inputs: int) -> None:
        """Set the number of inputs to probe."""
        self._inputs = inputs

    def add_probed(self, reason: str) -> None:
        """Count an input that is probed. `reason`: why it is quarantined; "" if it is not."""
        self._probed += 1
        self.add_quarantined([reason] if reason else [])

    def expect_videos(self, videos: int, frames: int, estimated: int = 0) -> None:
        """Set the number of videos to annotate, and of their frames. The rate is counted from now on.

        Args:
            estimated: number of frames of small files, which are counted later.
        """
        self._videos, self._known, self._estimated, self._start = videos, frames, estimated, self._clock()

    def add_counted(self, estimated: int, frames: int) -> None:
        """Count small files whose frames were estimated. Others are assumed to be like them."""
        self._counted = self._counted[0] + estimated, self._counted[1] + frames

    @property
    def _frames(self) -> int:
        """The number of frames to extract."""
        estimated, counted = self._counted
        return self._known + (round(self._estimated * counted / estimated) if estimated else self._estimated)

    def add_frames(self, frames: int, seconds: Mapping[str, float], encoder_s: float = 0.0) -> None:
        """Count extracted frames.

        Args:
            seconds: work of workers on them, by stage.
            encoder_s: work of encoders on them.
        """
        self.work.frames += frames
        self.work.workers.update(seconds)
        self.work.encoders.update({"encode": encoder_s} if encoder_s else {})
        self._draw()

    def add_videos(self, videos: int, reasons: Iterable[str] = ()) -> None:
        """Count videos that are annotated or quarantined. `reasons`: of those that are quarantined."""
        self._done += videos
        self.add_quarantined(reasons)

    def add_quarantined(self, reasons: Iterable[str]) -> None:
        """Count videos that are quarantined for these reasons."""
        self._quarantined.update(reason.partition(":")[0] for reason in reasons)
        self._draw()

    def close(self) -> None:
        """Erase the line of a terminal."""
        if self._shown and self._terminal:
            sys.stderr.write("\x1b[2K")
            sys.stderr.flush()

    def line(self) -> str:
        """Return the counts in one line."""
        seconds = max(self._clock() - self._start, 1e-9)
        if self._videos:
            rate = self.work.frames / seconds
            shares = (self.work.frames, self._frames) if self._frames else (self._done, self._videos)
            line = (
                f"{self._done:,} of {self._videos:,} videos, {self.work.frames:,} of {self._frames:,} frames, "
                f"{rate:,.1f} frames/s"
            )
        else:
            shares = (self._probed, self._inputs)
            line = f"probed {self._probed:,} of {self._inputs:,} inputs, {self._probed / seconds:,.1f}/s"
        if 0 < shares[0] < shares[1]:
            line += f", {_duration(seconds * (shares[1] - shares[0]) / shares[0])} left"
        if self._quarantined:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self._quarantined.most_common())
            line += f"; quarantined: {reasons}"
        return line

    def _draw(self) -> None:
        now = self._clock()
        if not self._shown or now - self._drawn < (_TERMINAL_S if self._terminal else _LOG_S):
            return
        self._drawn = now
        if self._terminal:
            redraw(self.line(), "\r")
        else:
            logger.info("%s", self.line())


def redraw(line: str, end: str) -> None:
    """Write a line in place of the last one on the terminal of standard error, cut to its width.

    A longer line would take several rows, of which the next one would replace only the last.
    """
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns  # 0 if it does not know
    except (OSError, ValueError):
        columns = 0
    fitting = f"{line[: columns - 2]}…" if 0 < columns <= len(line) else line
    sys.stderr.write(f"\x1b[2K{fitting}{end}")
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"
