"""SIGTERM as an interruption: Slurm, Kubernetes and `ray job stop` end a job with it, a terminal with Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does, so that what is done is committed before the process ends.

    Ray sets a handler of its own, which ends the process with a crash report, so the block begins after Ray has.
    """
    is_main = threading.current_thread() is threading.main_thread()  # Only it can set a handler.
    if not is_main or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # Whoever starts a job may want this.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None: the handler before was not set by Python, and cannot be set again.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
