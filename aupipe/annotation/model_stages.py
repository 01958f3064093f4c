"""The stages of an annotation that run models: extract audio, encode, finalize, export. They do not use Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from aupipe.annotation import audio_features, features, ledger, model_set
from aupipe.annotation.audio_features import LogMelReader
from aupipe.annotation.counts import frame_counts
from aupipe.annotation.encode import Encoders
from aupipe.annotation.events import find_events
from aupipe.annotation.export import export
from aupipe.annotation.extract import with_embeddings
from aupipe.annotation.faults import INPUT_ERRORS, contain_fault
from aupipe.annotation.features import Embeddings
from aupipe.annotation.ledger import Record
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.postprocess import Decision, apply_decision, predict_video
from aupipe.annotation.retry import guard
from aupipe.annotation.settings import AnnotateConfig
from aupipe.faces.align import CROP_SIZE_PX
from aupipe.storage import Storage


class ExtractAudio:
    """Writes the log-mel spectrogram of a video for `Finalize`."""

    def __init__(self, config: AnnotateConfig, storage: Storage, guarded: bool = True) -> None:
        self._limits, self._storage = config.limits, storage
        self._attempt = guard(guarded)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        with (
            contain_fault(self._storage, row["video_id"], INPUT_ERRORS) as outcome,
            self._attempt(self._storage, f"{row['key']}.sound", self._limits.attempts, self._limits.probe_s),
        ):
            audio_features.write_log_mel(self._storage, row["key"], row["uri"])
        return {**row, "error": outcome.reason}


# What `Encode` says of a part.
_DONE = pa.schema([
    ("video_id", pa.string()), ("error", pa.string()), ("attempts", pa.int64()), ("work_s", pa.float64()),
    ("last", pa.bool_()), ("frames", pa.int64()),
])  # fmt: skip
# After it every call of the device fails, whatever the crops: the process must end, and the job with it.
_BROKEN_DEVICE = (torch.AcceleratorError,)


class Encode:
    """Embeds the crops of several parts, and leaves each part's rows for finalize. If that raises, each part is
    embedded alone, so that only the input whose part raises is set aside.
    """

    def __init__(self, models: ModelSet, storage: Storage, batch_size: int, device: str) -> None:
        self._encoders = Encoders(models, batch_size, torch.device(device))
        self._crop_shape = (len(models.templates), CROP_SIZE_PX, CROP_SIZE_PX, 3)
        self._storage = storage

    def __call__(self, batch: pa.Table) -> pa.Table:
        start = time.monotonic()
        parts = batch.drop_columns("crops").to_pylist()
        # As they lie in the batch: they are the largest thing in this worker.
        buffers = [crops.as_buffer() for crops in batch["crops"]]
        whole: list[np.ndarray] = []
        with contain_fault(self._storage, None, fatal=_BROKEN_DEVICE) as together:
            whole = self._embed(buffers)
        done = []
        for number, part in enumerate(parts):
            frames = 0
            with contain_fault(self._storage, part["video_id"], fatal=_BROKEN_DEVICE) as alone:
                (mine,) = self._embed([buffers[number]]) if together.reason else whole[number : number + 1]
                frames = 0 if part["error"] else self._leave(part, mine)
            said = {name: part[name] for name in ("video_id", "attempts", "work_s", "last")}
            done.append(said | {"error": part["error"] or alone.reason, "frames": frames})
        share = (time.monotonic() - start) / max(len(done), 1)
        return pa.Table.from_pylist([d | {"work_s": d["work_s"] + share} for d in done], _DONE)

    def _embed(self, buffers: Sequence[pa.Buffer]) -> list[np.ndarray]:
        """The embeddings (m, ΣE) of the crops of each part."""
        crops = [np.frombuffer(buffer, np.uint8).reshape(-1, *self._crop_shape) for buffer in buffers]
        embeddings = self._encoders([crop for part in crops for crop in part])
        edges = np.cumsum([0, *map(len, crops)]).tolist()
        return [embeddings[first:last] for first, last in pairwise(edges)]

    def _leave(self, part: dict[str, Any], embeddings: np.ndarray) -> int:
        """Write a part for finalize. Returns its frames."""
        rows = with_embeddings(_from_ipc(part["rows"]), embeddings)
        features.write(self._storage, part["key"], part["number"], part["last"], rows)
        return len(np.unique(rows["frame"].to_numpy()))


def _from_ipc(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


@dataclass(frozen=True)
class Group:
    """Videos whose tables are written together.

    Attributes:
        records: what is known of each before finalize.
        observed: for each video the files that observe left, in order.
        sounds: for each video the files of its sound, in order; none where no model listens.
        committed: where head is done and only decide is due: the frames files that hold their rows.
    """

    generation: int
    records: list[Record] = field(default_factory=list)
    observed: list[list[str]] = field(default_factory=list)
    sounds: list[list[str]] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)

    def to_row(self) -> dict[str, Any]:
        return {"group": json.dumps(asdict(self))}


# A video's record, frames and events.
Tables = tuple[Record, pa.Table, pa.Table]


class Finalize:
    """Head, decide and events for a group of videos; commits their tables. A video on which that raises is left out."""

    def __init__(self, heads: ModelSet, storage: Storage, config: AnnotateConfig, decision: Decision) -> None:
        self._models = heads
        self._storage, self._config, self._decision = storage, config, decision

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        group = Group(**json.loads(row["group"]))
        read = cache(partial(ledger.read_all, self._storage, group.committed))
        done: list[Tables] = []
        reasons: dict[str, str] = {}
        for number, known in enumerate(group.records):
            with contain_fault(self._storage, known["video_id"]) as outcome:
                record = dict(known)
                if group.committed:
                    before = read()
                    frames = before.filter(pc.equal(before["video_id"], record["video_id"]))
                else:
                    sound = LogMelReader(self._storage, group.sounds[number]) if group.sounds[number] else None
                    frames = self._head(record, Embeddings(self._storage, group.observed[number]), sound)
                frames = apply_decision(frames, self._decision)
                done.append((record, frames, find_events(frames, self._config.effective_events)))
            if outcome.reason:
                reasons[known["video_id"]] = outcome.reason
        with contain_fault(self._storage, None) as together:
            self._commit(done, group.generation)
        for each in done if together.reason else ():
            with contain_fault(self._storage, each[0]["video_id"]) as outcome:
                self._commit([each], group.generation)
            if outcome.reason:
                reasons[each[0]["video_id"]] = outcome.reason
        ids = [record["video_id"] for record in group.records]
        return {"video_ids": json.dumps(ids), "reasons": json.dumps(reasons)}

    def _commit(self, videos: Sequence[Tables], generation: int) -> None:
        if videos:
            records, frames, events = zip(*videos, strict=True)
            ledger.commit(
                self._storage, pa.concat_tables(frames), pa.concat_tables(events), records, generation,
                self._config.rows_per_file,
            )  # fmt: skip

    def _head(self, record: Record, video: Embeddings, sound: LogMelReader | None) -> pa.Table:
        """The frames table of a video; counts go into its record."""
        tell = partial(model_set.predict_track, self._models, video, sound, inference=self._config.inference)
        frames = predict_video(
            record["video_id"],
            video.rows,
            tell,
            len(self._models.members),
            self._models.n_expressions,
            self._config.effective_tracking,
        )
        losses = [*record["losses"], *([sound.reason] if sound and sound.reason else [])]
        record |= frame_counts(video.rows, record["frames_expected"], losses)
        record["faces"] = len(frames["face_id"].drop_null().unique())
        return frames


class Export:
    """Writes the tables of some videos of an entry in other forms, but for a video on which that raises."""

    def __init__(self, storage: Storage, forms: tuple[str, ...]) -> None:
        self._storage, self._forms = storage, forms

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        read = cache(partial(ledger.read_all, self._storage, json.loads(row["files"])))
        reasons: dict[str, str] = {}
        for video_id in json.loads(row["video_ids"]):
            with contain_fault(self._storage, video_id) as outcome:
                frames = read()
                export(self._storage, self._forms, frames.filter(pc.equal(frames["video_id"], video_id)))
            if outcome.reason:
                reasons[video_id] = outcome.reason
        return {**row, "reasons": json.dumps(reasons)}
