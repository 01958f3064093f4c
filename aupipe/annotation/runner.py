"""Runners of the stages: in this process with `LocalRunner`, or on Ray with `pipelines.annotate`.

Both run the same stages over the same plan, and write the same ledger and the same tables, bit for bit.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import set_torch_threads
from aupipe.annotation.model_stages import Encode, Export, Extract, ExtractAudio, Finalize, Group
from aupipe.annotation.packets import AnnotatePacket, Packet
from aupipe.annotation.stages import Decode, Probe, Row, SegmentTask
from aupipe.storage import Storage


class Runner(Protocol):
    """A runner of the stages of `stages` and `model_stages`; it may return rows in any order."""

    def probe(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Run `Probe`, on at least one of the rows."""

    @property
    def decoders(self) -> int:
        """The number of processes that run all stages, or all but `Encode`."""

    @property
    def encoders(self) -> int:
        """The number of processes that only run `Encode`; 0 if the others run it too."""

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterable[Row]:
        """Run `AnnotatePacket`."""

    def extract_audio(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Run `ExtractAudio`."""

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterable[Row]:
        """Run `Decode`, then `Encode` on its parts."""

    def finalize(self, groups: Sequence[Group]) -> Iterable[Row]:
        """Run `Finalize`."""

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> Iterable[Row]:
        """Run `Export`."""

    def reserved(self, segments: int) -> AbstractContextManager[None]:
        """Reserve the resources for this number of segments during the block."""


# Opens a runner for a planned job, after the checks that are specific to that runner.
OpenRunner = Callable[[AnnotateJob, CacheKeys, Storage], AbstractContextManager[Runner]]


class LocalRunner:
    """A runner that calls the stages one after another in this process."""

    def __init__(self, keys: CacheKeys, storage: Storage, *, guarded: bool = True) -> None:
        """Create the runner. `guarded`: a stalled stage ends this process, and each input has a limited number of
        attempts.

        Raises:
            ConfigError: a GPU is asked for, and torch has none.
        """
        self._keys, self._storage, self._guarded = keys, storage, guarded
        resources, self._device = keys.config.resources, "cpu"
        if resources.gpu is True:
            from aupipe.models.torch_model import check_device

            check_device(resources.device)
            self._device = resources.device

    def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
        return map(Probe(self._keys.config, self._storage, self._guarded), rows)

    decoders, encoders = 1, 0

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterator[Row]:
        stage = AnnotatePacket(self._keys, self._storage, self._device, self._guarded)
        return (stage(packet.to_row()) for packet in packets)

    def extract_audio(self, rows: Sequence[Row]) -> Iterator[Row]:
        return map(ExtractAudio(self._keys.config, self._storage, self._guarded), rows)

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterator[Row]:
        config, models = self._keys.config, self._keys.models
        stage = Extract(
            Decode(config, self._storage, models.templates, self._guarded),
            Encode(models, self._storage, config.batch_size, self._device),
            self._storage,
        )
        for row in Extract.rows(tasks):
            yield from stage(row)

    def finalize(self, groups: Sequence[Group]) -> Iterator[Row]:
        finalize = Finalize(self._keys.models.heads, self._storage, self._keys.config, self._keys.decision)
        return (finalize(group.to_row()) for group in groups)

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> Iterator[Row]:
        return map(Export(self._storage, forms), rows)

    @contextmanager
    def reserved(self, segments: int) -> Iterator[None]:
        yield


@contextmanager
def local_runner(job: AnnotateJob, keys: CacheKeys, storage: Storage) -> Iterator[Runner]:
    """Open a `LocalRunner`."""
    with one_thread():
        yield LocalRunner(keys, storage)


class _Threads:
    """The numbers of threads that torch and OpenCV use after blocks that may overlap in several threads.

    Torch has a number for each thread, which a new thread takes from the one that set it last. So only the first of
    overlapping blocks knows the number from before. OpenCV has one number, which detectors set to 1 and the last block
    restores. Blocks do not nest on one thread.
    """

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._of_torch: int | None = None
        self._of_opencv: int | None = None

    def begin(self) -> None:
        """Begin a block on this thread."""
        opencv = sys.modules.get("cv2")
        with self._lock:
            before = set_torch_threads(1)
            if self._blocks == 0:
                self._of_torch = before
                self._of_opencv = None if opencv is None else opencv.getNumThreads()
            self._blocks += 1

    def end(self) -> None:
        """End the block of this thread."""
        with self._lock:
            self._blocks -= 1
            if self._of_torch is not None:
                set_torch_threads(self._of_torch)
            if self._blocks == 0 and self._of_opencv is not None:
                sys.modules["cv2"].setNumThreads(self._of_opencv)


_threads = _Threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread during the block, because several threads could add in another order.

    Afterwards torch and OpenCV have the numbers of threads that they had before.
    """
    _threads.begin()
    try:
        yield
    finally:
        _threads.end()
