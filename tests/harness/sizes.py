"""The sizes at which whatever works in batches of n goes wrong: nothing, one, a batch but for one, a whole batch …"""

from __future__ import annotations


def sizes(batch: int) -> list[int]:
    """0, 1, n − 1, n, n + 1 and 2n of a batch of n, each once."""
    return sorted({0, 1, batch - 1, batch, batch + 1, 2 * batch})


def batches(count: int, batch: int) -> list[int]:
    """The sizes of the batches of n that `count` make up: all full but the last, none empty."""
    return [min(batch, count - first) for first in range(0, count, batch)]
