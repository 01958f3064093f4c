"""Shared fixtures: tiny face stores whose labels can be seen in the pixels, and tiny models."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest

from aupipe import facs
from aupipe.facestore import write
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.media.audio import AudioBlock
from aupipe.storage import Storage

# Threads that spin for a core slow tests down many times over where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On shared cores an example may take any time; pytest-timeout catches what hangs.
hypothesis.settings.register_profile("aupipe", deadline=None, max_examples=50)
hypothesis.settings.load_profile("aupipe")

ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))

MakeStore = Callable[..., str]
MakeCheckpoint = Callable[..., str]


def crop(rng: np.random.Generator, au: np.ndarray) -> bytes:
    """Return a noisy JPEG with a white square for each active AU."""
    image = rng.integers(60, 120, (112, 112, 3), dtype=np.uint8)
    for number in np.flatnonzero(au == 1):
        row, column = divmod(int(number), 4)
        image[10 + row * 34 : 30 + row * 34, 6 + column * 26 : 26 + column * 26] = 255
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Return `make_store(train=8, validation=3, frames=24, seed=0, unknown=0.1)`, which returns a face store's path.

    `lacks` are AUs without labels, and `prefix` is the prefix of the videos' names.
    """

    def make(
        *, train: int = 8, validation: int = 3, frames: int = 24, seed: int = 0, unknown: float = 0.1,
        lacks: tuple[str, ...] = (), prefix: str = "",
    ) -> str:  # fmt: skip
        folder: Path = tmp_path_factory.mktemp("store")
        storage, rng, names = Storage(folder), np.random.default_rng(seed), []
        for split, videos in (("train", train), ("validation", validation)):
            if not videos:
                continue
            part = write.ShardWriter()
            for video in range(videos):
                au = np.repeat(rng.random((-(-frames // 4), len(facs.AUS))) < 0.35, 4, axis=0)[:frames].astype(np.int8)
                images = [crop(rng, row) for row in au]
                au[rng.random(frames) < unknown] = facs.UNKNOWN
                au[:, [facs.AUS.index(name) for name in lacks]] = facs.UNKNOWN
                name = f"{prefix}{split}{video:02d}.mp4"
                part.add(
                    write.rows(
                        video_id=name, frames=np.arange(1, frames + 1), images=images, au=au,
                        expression=np.where((au[:, 0] < 0), facs.UNKNOWN, au[:, 0] + 2 * au[:, 4]),
                        intensity=np.where(au == 1, 0.6, 0.1), source="test",
                    )
                )  # fmt: skip
                sound = AudioBlock(0.0, 44100, rng.integers(-3000, 3000, (1, 44100 * frames // 30), dtype=np.int16))
                storage.write(write.audio_name(name), write.audio_file(name, [sound]))
            names.append(write.shard_name(split, 0, f"{seed}"))
            storage.write(names[-1], part.finish())
        header = StoreHeader(
            edition="abaw5", source="test", license="CC0", template=ARCFACE, template_source="arcface",
            n_expressions=8, settings={},
        )  # fmt: skip
        write.finish(storage, header, names)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Return `make_checkpoint(seed=0, size_px=112, …)`, which returns the folder of a model with random weights."""

    def make(
        *, seed: int = 0, size_px: int = 112, template: object = ARCFACE, threshold: float = 0.5, radius: int = 0
    ) -> str:
        import torch

        from aupipe.models import checkpoint
        from aupipe.models.build import build
        from aupipe.models.configs import MultilabelTransformerConfig
        from aupipe.models.inputs import InputSpec

        card = checkpoint.Card(
            model=MultilabelTransformerConfig(backbone="test_resnet", width=32, heads=2, mlp_width=32),
            input=InputSpec(size_px=size_px), template=template, thresholds=dict.fromkeys(facs.AUS, threshold),
            smoothing=checkpoint.Smoothing(radius=radius),
        )  # fmt: skip
        torch.manual_seed(seed)
        folder = Storage(tmp_path_factory.mktemp("checkpoint"))
        checkpoint.save(folder, build(card.model, card.input).eval(), card)
        return folder.root

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: MakeCheckpoint) -> str:
    """Return the folder of a model with random weights."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def exported_checkpoint() -> str:
    """Return the folder of a model that runs without torch, whose import takes seconds of each of Ray's workers."""
    from aupipe.models import default_models

    return str(default_models.FOLDERS[0])


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start one local Ray for all tests that need it. Pipelines use it instead of starting their own."""
    import ray

    import harness
    from aupipe.pipelines.session import session

    ray.cloudpickle.register_pickle_by_value(harness)  # workers have no `harness` on their path
    with session(num_cpus=4):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Require a mark on every test, because `make test` selects by marks and would never run a test without one."""
    kinds = {"unit", "ray", "cluster"}
    unmarked = sorted({item.location[0] for item in items if not kinds & {mark.name for mark in item.iter_markers()}})
    if unmarked:
        raise pytest.UsageError(f"no mark unit, ray or cluster in {', '.join(unmarked)}")


def pytest_collection_finish() -> None:
    """Exempt all imported modules from garbage collection, which each decoded segment runs and which they slow down."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def index(make_store: Callable[..., str]) -> FaceStore:
    """Return a small face store with four training and three validation videos."""
    return FaceStore.open(make_store(train=4, validation=3, frames=16))
