"""Something that is done again and again beside the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def periodically(act: Callable[[], None], every_s: float) -> Iterator[None]:
    """Calls `act` in a thread of its own: every so many seconds while the block runs, and once more when it ends."""
    stop = threading.Event()

    def repeat() -> None:
        ended = False
        while not ended:
            ended = stop.wait(every_s)
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
