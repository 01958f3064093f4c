"""What finalizing runs on workers: the tables of a group of videos, from what observe left or what is committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from aupipe.annotation import ledger, model_set
from aupipe.annotation.audio_features import LogMelReader
from aupipe.annotation.counts import frame_counts
from aupipe.annotation.events import find_events
from aupipe.annotation.export import export
from aupipe.annotation.faults import contain_fault
from aupipe.annotation.features import Embeddings
from aupipe.annotation.ledger import Record
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.postprocess import Decision, apply_decision, predict_video
from aupipe.annotation.settings import AnnotateConfig
from aupipe.storage import Storage


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

    def __init__(self, heads: ray.ObjectRef, storage: Storage, config: AnnotateConfig, decision: Decision) -> None:
        torch.set_num_threads(1)
        self._models: ModelSet = ray.get(heads)
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
