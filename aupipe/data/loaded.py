"""Values that several threads load and use, and reading ahead by threads."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Item = TypeVar("Item")

_LOADING_THREADS = 4  # of `prefetch`; more than a worker's CPUs, because loading waits for disks and object stores


class Loaded(Generic[K, V]):
    """The values used last, by key. Threads that need the same value wait for one of them to load it."""

    def __init__(self, load: Callable[[K], V], size: int) -> None:
        """
        Args:
            size: number of values in memory.
        """
        self._load, self._size = load, size
        self._lock = threading.Lock()
        self._futures: OrderedDict[K, Future[V]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._futures)

    def __call__(self, key: K) -> V:
        """Return the value of `key`.

        Raises:
            Exception: of `load`; a later call tries again.
        """
        with self._lock:
            future, missing = self._futures.get(key), key not in self._futures
            if future is None:
                future = self._futures[key] = Future()
                while len(self._futures) > self._size:
                    self._futures.popitem(last=False)
            self._futures.move_to_end(key)
        if missing:
            try:
                future.set_result(self._load(key))
            except BaseException as error:
                with self._lock:
                    self._futures.pop(key, None)
                future.set_exception(error)
                raise
        return future.result()

    def prefetch(self, keys: Iterable[K]) -> None:
        """Start to load the values of `keys`, in this order, and return at once. Their use raises what went wrong."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_LOADING_THREADS)
            for key in keys:
                if key not in self._futures:
                    self._pool.submit(self, key)


def read_ahead(
    read: Callable[[Item], V], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[V, None, None]:
    """Yield `read(item)` for all items in their order, while threads read up to `ahead` further items.

    Raises:
        Exception: of `read`, when the item is due.
    """
    waiting: deque[Future[V]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
