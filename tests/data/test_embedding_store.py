from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from aupipe.data import embedding_store, sampler
from aupipe.data.augment import AugmentConfig
from aupipe.data.batches import EmbeddingFolders, EmbeddingSource
from aupipe.data.embedding_store import EmbeddingReader, Encoding, augmented_encodings, encode_crops
from aupipe.data.readers import CropReader
from aupipe.errors import ConfigError, DatasetError
from aupipe.facestore.read import FaceStore
from aupipe.models.build import build
from aupipe.models.configs import VideoTransformerConfig
from aupipe.models.embedding import encoder_sha256
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder
from aupipe.storage import Storage
from aupipe.training import recipe, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import build_learner
from aupipe.training.recipe import Recipe

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
INPUTS = InputSpec(size_px=64)
SMALL = {"backbone": "test_resnet", "width": 16, "heads": 2, "mlp_width": 16, "clip_frames": 8}
PROMPTS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "model.clip_frames=8", "model.token_grid=[1,1]",
    "input.size_px=32", "stages.base.batch=4", "stages.base.tasks.au.data.clip_frames=8",
    "stages.base.augment={flip: false, gain: 0, contrast: 0}", "stages.base.tasks.au.data.held_out=0",
    "stages.base.tasks.au.data.window_groups=1",
]  # fmt: skip
SEQUENCE = [
    "input.size_px=32", "model.backbone=test_resnet", "model.audio.width=8", "model.sequence.frames=8",
    *(f"stages.sequence.tasks.{task}.data={{clip_frames: 8, clip_stride: 4, held_out: 0}}" for task in ("au", "expr")),
]  # fmt: skip


class Brightness(FrameEncoder):
    """An encoder that returns the mean of each half of a frame, left and right."""

    embed_dim = 2

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.unflatten(3, (2, -1)).mean(dim=(1, 2, 4))


@pytest.fixture(scope="module")
def index(make_store: Callable[..., str]) -> FaceStore:
    return FaceStore.open(make_store(train=4, validation=2, frames=100))


def encoder(seed: int = 0, **settings: object) -> FrameEncoder:
    torch.manual_seed(seed)
    return build(VideoTransformerConfig(**{**SMALL, **settings}), INPUTS).encoder.eval()


def plain(network: FrameEncoder, index: FaceStore) -> Encoding:
    return Encoding(
        encoder_sha256=encoder_sha256(network), width=network.embed_dim, input=INPUTS, store_sha256=index.sha256
    )


def store(folder: Path, network: FrameEncoder, index: FaceStore, *ways: Encoding) -> tuple[str, ...]:
    """Encode like the Ray job."""
    for way in ways:
        place = Storage(folder / way.key)
        for part in index.card.shards:
            place.write(part.name, embedding_store.encode_part(network, way, index, part.name, CPU))
        embedding_store.write_card(place, way)
    return tuple(str(folder / way.key) for way in ways)


def test_row_i_is_row_i_of_the_pool_bit_for_bit(index: FaceStore, tmp_path: Path) -> None:
    network = encoder()
    folders = store(tmp_path, network, index, plain(network, index))
    part = index.card.shards[0].name
    groups = pq.ParquetFile(f"{folders[0]}/{part}").metadata
    assert [groups.row_group(k).num_rows for k in range(groups.num_row_groups)] == [256, 144]
    assert (
        embedding_store.encode_part(network, plain(network, index), index, part, CPU)
        == Path(folders[0], part).read_bytes()
    )
    for pool in ("train", "validation", "all"):
        rows = np.random.default_rng(0).permutation(index.rows(pool))[:70]  # other company than when they were stored
        crops = CropReader(index, pool, keep_groups=1)
        reader = EmbeddingReader(index, pool, folders, keep_groups=1)
        found = reader.read(rows)
        assert torch.equal(found, encode_crops(network, INPUTS, crops, rows, CPU))
        assert len(reader._group) == 1


def test_copies_have_one_draw_per_track_and_differ(index: FaceStore, tmp_path: Path) -> None:
    network = Brightness()
    way = plain(network, index).model_copy(update={"input": InputSpec(size_px=112, mean=(0, 0, 0), std=(1, 1, 1))})
    ways = augmented_encodings(way, AugmentConfig(flip=True, gain=0.2, label_smoothing=0.1), 2)
    folders = store(tmp_path, network, index, way, *ways)
    crops, *drawn = (EmbeddingReader(index, "train", [f], keep_groups=9).read(np.arange(400)) for f in folders)
    gains = torch.stack([copy.sum(dim=1) / crops.sum(dim=1) for copy in drawn]).unflatten(1, (4, 100))
    assert (gains.std(dim=2) < 0.02).all()  # clipped at white, so not quite the same
    means = gains.mean(dim=2).flatten()
    assert torch.pdist(means[:, None]).min() > 1e-4
    flipped = torch.stack([(copy - copy.flip(1)).sign() != (crops - crops.flip(1)).sign() for copy in drawn])
    each = flipped[..., 0].unflatten(1, (4, 100)).float().mean(dim=2)
    assert (each - each.round()).abs().max() < 0.05  # all frames of a track, or none; few are as bright on both sides
    assert set(each.round().flatten().tolist()) == {0.0, 1.0}

    source = EmbeddingSource(
        index=index,
        pool="train",
        keep_groups=9,
        folders=folders[1:],
        config=AugmentConfig(label_smoothing=0.1),
        device=CPU,
    )
    rows, targets = np.array([[3, 4], [150, 399]]), torch.tensor([[[1.0], [0.0]], [[-1.0], [1.0]]])
    for over in range(4):
        stored = source.read(rows.ravel(), pass_index=over)
        seen, smoothed = source.clips(stored, targets, generator=torch.Generator())
        assert torch.equal(seen, drawn[over % 2][rows])
    torch.testing.assert_close(smoothed.flatten(), torch.tensor([0.95, 0.05, -1, 0.95]))


def test_key_depends_on_everything_that_matters_and_nothing_else(index: FaceStore) -> None:
    base = plain(encoder(), index)
    moved = encoder()
    next(iter(moved.buffers())).add_(1)
    spatial = {"cut": "spatial", "spatial_layers": 1}
    others = [
        plain(encoder(seed=1), index), plain(moved, index), plain(encoder(token_grid=(1, 1)), index),
        plain(encoder(**spatial), index), plain(encoder(**spatial, heads=4), index),
        base.model_copy(update={"input": InputSpec(size_px=48)}), base.model_copy(update={"store_sha256": "another"}),
        *augmented_encodings(base, AugmentConfig(flip=True), 2),
        *augmented_encodings(base, AugmentConfig(gain=0.1), 1),
    ]  # fmt: skip
    assert len({each.key for each in (base, *others)}) == 1 + len(others)
    same = plain(encoder(temporal_layers=2, head="frame_only").train().to(memory_format=torch.channels_last), index)
    assert same.key == base.key
    once, smoothed = (augmented_encodings(base, AugmentConfig(flip=True, label_smoothing=s), 1) for s in (0, 0.1))
    assert once == smoothed


def trainer(plan: Recipe, index: FaceStore, places: dict[sampler.Task, EmbeddingFolders]) -> engine.Trainer:
    stage = list(plan.stages)[-1]
    data = task_data.task_data(plan, stage, index)
    learner, optimizer = build_learner(plan, stage, data, None)
    learner = learner.to(memory_format=torch.channels_last)
    return engine.Trainer(
        recipe=plan, stage=stage, data=data, model=learner, optimizer=optimizer, rank=0, world=1, device=CPU,
        embeddings=places,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("prompt_tuning", [*PROMPTS, "stages.prompts=null"]), ("multimodal", SEQUENCE)],
)
def test_learning_from_embeddings_ends_in_the_bits_of_encoding_in_every_epoch(
    name: str, chosen: list[str], make_store: Callable[..., str], tmp_path: Path
) -> None:
    index = FaceStore.open(make_store(train=5, validation=2, frames=21))
    plan = recipe.read(name, quick=True, overrides=chosen)
    fly = trainer(plan, index, {})
    network = fly.learner.encoder
    way = plain(network, index).model_copy(update={"input": plan.input})
    folders = store(tmp_path, network, index, way)
    once = trainer(plan, index, dict.fromkeys(fly.loaders, EmbeddingFolders(folders, folders)))
    once.learner.encoder.requires_grad_(False).apply(lambda module: module.register_forward_pre_hook(fail))
    for epoch in range(2):
        assert fly.train_epoch(epoch) == once.train_epoch(epoch)
        assert fly.validate() == once.validate()
    states = (one.learner.state_dict() for one in (fly, once))
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


def fail(*_: object) -> None:
    raise AssertionError("the encoder is asked, though all is stored")


def test_a_trained_encoder_is_refused(index: FaceStore) -> None:
    plan = recipe.read(
        "prompt_tuning", quick=True, overrides=[*PROMPTS, "stages.prompts=null", "stages.base.encode_once={}"]
    )
    data = task_data.task_data(plan, "base", index)
    build_learner(plan, "base", data, None)
    groups = plan.stages["base"].optimizer.groups
    learning = plan.model_dump()
    learning["stages"]["base"]["optimizer"]["groups"] = [
        groups[0].model_copy(update={"parameters": ("",)}).model_dump()
    ]
    with pytest.raises(ConfigError, match=r"stages\.base\.encode_once: the encoder is trained"):
        build_learner(Recipe.model_validate(learning), "base", data, None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("augment.mixup_alpha=0.4", "mixup"), ("augment={flip: false, gain: 0, contrast: 0}", "same")],
)
def test_invalid_copies_are_refused(setting: str, message: str) -> None:
    chosen = ["stages.base.encode_once.copies=2", f"stages.base.{setting}"]
    with pytest.raises(ConfigError, match=message):
        recipe.read("prompt_tuning", quick=True, overrides=chosen)


def test_mixup_of_crops_that_are_encoded_once_is_refused() -> None:
    with pytest.raises(ConfigError, match="mixup mixes crops of two videos"):
        recipe.read(
            "prompt_tuning", quick=True,
            overrides=["stages.base.encode_once.copies=0", "stages.base.augment.mixup_alpha=0.4"],
        )  # fmt: skip


def test_missing_and_foreign_embeddings_are_named(index: FaceStore, tmp_path: Path) -> None:
    network = Brightness()
    way = plain(network, index)
    with pytest.raises(DatasetError, match=r"embeddings\.json is missing"):
        EmbeddingReader(index, "train", [str(tmp_path)], keep_groups=1)
    (folder,) = store(tmp_path, network, index, way)
    (Path(folder) / index.card.shards[0].name).unlink()
    with pytest.raises(DatasetError, match=r"split=train/.* is missing"):
        EmbeddingReader(index, "train", [folder], keep_groups=1).read(np.arange(3))
    embedding_store.write_card(Storage(folder), way.model_copy(update={"store_sha256": "other"}))
    with pytest.raises(DatasetError, match="of another store"):
        EmbeddingReader(index, "train", [folder], keep_groups=1)


def test_parts_of_rows(index: FaceStore) -> None:
    train, validation = (part.name for part in index.card.shards)
    expected = {(399,): (train,), (400,): (validation,), (0, 410): (train, validation)}
    assert [embedding_store.parts_of(index, "all", np.array(rows)) for rows in expected] == list(expected.values())
