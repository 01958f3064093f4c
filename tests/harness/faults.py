"""Functions that raise an error of aupipe's own on some arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fails(work: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """Return `work` with an error on some arguments."""

    def faulty(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            raise TypeError("a fault of ours")
        return work(*args, **kwargs)

    return faulty
