"""The stages of an annotation that run models: audio, encode, extract, finalize, export. They do not use Ray."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import audio_features, features, ledger_entries, model_set
from aupipe.annotation.audio_features import LogMelReader
from aupipe.annotation.counts import with_counts
from aupipe.annotation.encode import Encoders, EncodersElsewhere, broken_device
from aupipe.annotation.events import find_events
from aupipe.annotation.export import export
from aupipe.annotation.extract import with_embeddings
from aupipe.annotation.faults import INPUT_ERRORS, contain_fault
from aupipe.annotation.features import Embeddings
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.postprocess import Decision, apply_decision, predict_video
from aupipe.annotation.retry import guard
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, DecodedPart, Row, SegmentTask
from aupipe.annotation.video_record import VideoRecord
from aupipe.faces import CROP_SIZE_PX
from aupipe.storage import Storage

PARTS_PER_BATCH = 4  # parts of segments in one batch of the encoder
# A row of `Extract` has about 1/256 of all frames, within these limits. Fewer, larger rows leave workers idle at the
# end. More, smaller rows of many short videos cost more than the videos.
_ROWS, _LEAST_FRAMES, _MOST_FRAMES = 256, 256, 6000


@dataclass(frozen=True)
class AudioTask:
    """A video whose spectrogram is to be written, and the key of the video."""

    key: str
    uri: str
    video_id: str

    def to_row(self) -> Row:
        """Return the task as a row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> AudioTask:
        """Read the task from a row."""
        return cls(**row)


@dataclass(frozen=True)
class AudioResult:
    """The result of `ExtractAudio`. `error`: the reason why it failed; "" if it did not."""

    video_id: str
    error: str

    def to_row(self) -> Row:
        """Return the result as a row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> AudioResult:
        """Read the result from a row."""
        return cls(**row)


class ExtractAudio:
    """The stage that writes the log-mel spectrogram of a video."""

    def __init__(self, config: AnnotateConfig, storage: Storage, guarded: bool = True) -> None:
        self._limits, self._storage = config.limits, storage
        self._attempt = guard(guarded)

    def __call__(self, row: Row) -> Row:
        task = AudioTask.from_row(row)
        unit = audio_features.audio_key(task.key)
        with (
            contain_fault(self._storage, task.video_id, INPUT_ERRORS) as outcome,
            self._attempt(self._storage, unit, self._limits, self._limits.probe_s),
        ):
            audio_features.write_log_mel(self._storage, task.key, task.uri)
        return AudioResult(task.video_id, outcome.reason).to_row()


@dataclass(frozen=True)
class EncodedPart:
    """The result of `Encode` for a part.

    Attributes:
        key: of the segment.
        error: the reason why the part failed; "" if it did not.
        lost: as in `DecodedPart`.
        work_s: CPU time of decoding and encoding the part, about.
        frames: of the part whose features are written.
        decode_s, encode_s: the parts of `work_s` that decode frames and encode crops.
    """

    key: str
    video_id: str
    error: str
    lost: str
    attempts: int
    work_s: float
    last: bool
    frames: int
    decode_s: float = 0.0
    encode_s: float = 0.0

    @property
    def stages(self) -> dict[str, float]:
        """The seconds of each stage but `encode`."""
        return {"decode": self.decode_s, "detect": self.work_s - self.decode_s - self.encode_s}

    def to_row(self) -> Row:
        """Return the result as a row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> EncodedPart:
        """Read the result from a row."""
        return cls(**row)


_ENCODED_PART = pa.schema([
    ("key", pa.string()), ("video_id", pa.string()), ("error", pa.string()), ("lost", pa.string()),
    ("attempts", pa.int64()), ("work_s", pa.float64()), ("last", pa.bool_()), ("frames", pa.int64()),
    ("decode_s", pa.float64()), ("encode_s", pa.float64()),
])  # fmt: skip


class Encode:
    """The stage that embeds the crops of several parts in one batch and writes their features.

    If the batch raises, each part is embedded separately, so that only the input whose part raises is quarantined.
    """

    def __init__(
        self, models: ModelSet, storage: Storage, batch_size: int, device: str,
        elsewhere: EncodersElsewhere | None = None,
    ) -> None:  # fmt: skip
        """Create the stage. `elsewhere`: None: the encoders are in this process, on the device."""
        self._encoders = elsewhere or Encoders(models, batch_size, device)
        self._fatal = broken_device(device)
        self._crop_shape = (len(models.templates), CROP_SIZE_PX, CROP_SIZE_PX, 3)
        self._storage = storage

    def __call__(self, batch: pa.Table) -> pa.Table:
        start = time.monotonic()
        parts = [DecodedPart.from_row(row) for row in batch.drop_columns("crops").to_pylist()]
        # These are views of the batch, because crops take most of the memory of this worker.
        buffers = [crops.as_buffer() for crops in batch["crops"]]
        embeddings: list[np.ndarray] = []
        with contain_fault(self._storage, None, fatal=self._fatal) as batch_outcome:
            embeddings = self._embed(buffers)
        results: list[EncodedPart] = []
        for number, part in enumerate(parts):
            frames = 0
            with contain_fault(self._storage, part.video_id, fatal=self._fatal) as outcome:
                (of_part,) = self._embed([buffers[number]]) if batch_outcome.reason else embeddings[number : number + 1]
                frames = 0 if part.error else self._write(part, of_part)
            error = part.error or outcome.reason
            results.append(
                EncodedPart(
                    part.key,
                    part.video_id,
                    error,
                    part.lost,
                    part.attempts,
                    part.work_s,
                    part.last,
                    frames,
                    part.decode_s,
                )
            )
        part_s = (time.monotonic() - start) / max(len(results), 1)
        rows = [replace(result, work_s=result.work_s + part_s, encode_s=part_s).to_row() for result in results]
        return pa.Table.from_pylist(rows, _ENCODED_PART)

    def _embed(self, buffers: Sequence[pa.Buffer]) -> list[np.ndarray]:
        """Return the embeddings (m, ΣE) of the crops of each part."""
        crops = [np.frombuffer(buffer, np.uint8).reshape(-1, *self._crop_shape) for buffer in buffers]
        embeddings = self._encoders([crop for part in crops for crop in part])
        offsets = np.cumsum([0, *map(len, crops)]).tolist()
        return [embeddings[first:last] for first, last in pairwise(offsets)]

    def _write(self, part: DecodedPart, embeddings: np.ndarray) -> int:
        """Write the features of a part. Return its number of frames."""
        rows = with_embeddings(_from_ipc(part.rows), embeddings)
        self._keep(part, rows)
        return len(np.unique(rows["frame"].to_numpy()))

    def _keep(self, part: DecodedPart, rows: pa.Table) -> None:
        features.write(self._storage, part.key, part.number, part.last, rows)


def _from_ipc(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


class Extract:
    """The stage that decodes some segments, embeds their crops and writes their features.

    A row is repeated if its worker dies. Its short segments that are complete by then are skipped.
    """

    def __init__(self, decode: Decode, encode: Encode, storage: Storage) -> None:
        self._decode, self._encode, self._storage = decode, encode, storage

    def __call__(self, row: Row) -> Iterator[Row]:
        tasks = map(SegmentTask.from_row, json.loads(row["tasks"]))
        missing = (task for task in tasks if not features.has_single_part(self._storage, task.key))
        parts = (part for task in missing for part in self._decode(task.to_row()))
        while batch := list(islice(parts, PARTS_PER_BATCH)):
            yield from self._encode(pa.Table.from_pylist(batch)).to_pylist()

    @staticmethod
    def rows(tasks: Sequence[SegmentTask]) -> list[Row]:
        """Return the tasks in rows, in order."""
        total = sum(task.segment.frames for task in tasks)
        limit = min(max(total // _ROWS, _LEAST_FRAMES), _MOST_FRAMES)
        rows: list[list[Row]] = []
        frames = limit
        for task in tasks:
            if frames >= limit:
                rows.append([])
                frames = 0
            rows[-1].append(task.to_row())
            frames += task.segment.frames
        return [{"tasks": json.dumps(each)} for each in rows]


@dataclass(frozen=True)
class Group:
    """Videos whose tables are written together.

    Attributes:
        records: the record of each video, without counts.
        features: the files with the features of each video, in order.
        audio: the files with the spectrogram of each video, in order; empty if no model uses audio.
        committed: the committed frames files, if only the decision is due; empty if predictions are due.
    """

    generation: int
    records: list[VideoRecord] = field(default_factory=list)
    features: list[list[str]] = field(default_factory=list)
    audio: list[list[str]] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)

    def to_row(self) -> Row:
        """Return the group as a row."""
        group = self.__dict__ | {"records": [record.to_row() for record in self.records]}
        # The driver holds the rows of all groups, and their texts repeat.
        return {"group": zlib.compress(json.dumps(group).encode(), 1)}

    @classmethod
    def from_row(cls, row: Row) -> Group:
        """Read the group from a row."""
        group = json.loads(zlib.decompress(row["group"]))
        return cls(**group | {"records": [VideoRecord.from_row(record) for record in group["records"]]})


@dataclass(frozen=True)
class ExportTask:
    """Videos of a ledger entry to export, and the files of the entry."""

    frames: list[str]
    events: list[str]
    video_ids: list[str]

    def to_row(self) -> Row:
        """Return the task as a row."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_row(cls, row: Row) -> ExportTask:
        """Read the task from a row."""
        return cls(**{name: json.loads(value) for name, value in row.items()})


@dataclass(frozen=True)
class VideosResult:
    """The result of `Finalize` and `Export` for some videos.

    Attributes:
        reasons: of the failed ones, by video_id.
        work_s: CPU time, about.
    """

    video_ids: list[str]
    reasons: dict[str, str]
    work_s: float = 0.0

    def to_row(self) -> Row:
        """Return the result as a row."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_row(cls, row: Row) -> VideosResult:
        """Read the result from a row."""
        return cls(**{name: json.loads(value) for name, value in row.items()})


# The record, frames and events of a video.
Tables = tuple[VideoRecord, pa.Table, pa.Table]


class Finalize:
    """The stage that predicts, decides and finds events for a group of videos, and commits their tables.

    A video that raises is left out of the commit.
    """

    def __init__(self, heads: ModelSet, storage: Storage, config: AnnotateConfig, decision: Decision) -> None:
        self._models = heads
        self._storage, self._config, self._decision = storage, config, decision

    def __call__(self, row: Row) -> Row:
        start = time.monotonic()
        group = Group.from_row(row)
        read = cache(partial(ledger_entries.read_all, self._storage, group.committed))
        finished: list[Tables] = []
        reasons: dict[str, str] = {}
        for number, planned in enumerate(group.records):
            with contain_fault(self._storage, planned.video_id) as outcome:
                record = planned
                if group.committed:
                    committed = read()
                    frames = committed.filter(pc.equal(committed["video_id"], record.video_id))
                else:
                    mel = LogMelReader(self._storage, group.audio[number]) if group.audio[number] else None
                    record, frames = self._predict(record, Embeddings(self._storage, group.features[number]), mel)
                finished.append(self._decided(record, frames))
            if outcome.reason:
                reasons[planned.video_id] = outcome.reason
        reasons |= self.commit(finished, group.generation)
        ids = [record.video_id for record in group.records]
        return VideosResult(ids, reasons, time.monotonic() - start).to_row()

    def tables(self, record: VideoRecord, video: Embeddings) -> Tables:
        """Return the tables of an extracted video without audio."""
        return self._decided(*self._predict(record, video, None))

    def commit(self, videos: Sequence[Tables], generation: int) -> dict[str, str]:
        """Commit the tables together. Return the reasons of videos that could not be committed, by video_id."""
        reasons: dict[str, str] = {}
        with contain_fault(self._storage, None) as together:
            self._commit(videos, generation)
        for each in videos if together.reason else ():
            with contain_fault(self._storage, each[0].video_id) as outcome:
                self._commit([each], generation)
            if outcome.reason:
                reasons[each[0].video_id] = outcome.reason
        return reasons

    def _decided(self, record: VideoRecord, frames: pa.Table) -> Tables:
        frames = apply_decision(frames, self._decision)
        return record, frames, find_events(frames, self._config.effective_events, self._decision.mean_thresholds)

    def _commit(self, videos: Sequence[Tables], generation: int) -> None:
        if videos:
            records, frames, events = zip(*videos, strict=True)
            ledger_entries.commit(
                self._storage, pa.concat_tables(frames), pa.concat_tables(events), records, generation,
                self._config.rows_per_file,
            )  # fmt: skip

    def _predict(
        self, record: VideoRecord, video: Embeddings, mel: LogMelReader | None
    ) -> tuple[VideoRecord, pa.Table]:
        """Return the record of a video with its counts, and its frames table."""
        predict = partial(model_set.predict_track, self._models, video, mel, inference=self._config.inference)
        frames = predict_video(
            record.video_id,
            video.rows,
            predict,
            len(self._models.members),
            self._models.n_expressions,
            self._config.effective_tracking,
        )
        losses = [*record.losses, *([mel.reason] if mel and mel.reason else [])]
        faces = len(frames["face_id"].drop_null().unique())
        return replace(with_counts(record, video.rows, losses), faces=faces), frames


class Export:
    """The stage that exports some videos of a ledger entry. A video that raises is skipped."""

    def __init__(self, storage: Storage, forms: tuple[str, ...]) -> None:
        self._storage, self._forms = storage, forms

    def __call__(self, row: Row) -> Row:
        task = ExportTask.from_row(row)
        read = cache(partial(ledger_entries.read_all, self._storage))
        reasons: dict[str, str] = {}
        for video_id in task.video_ids:
            with contain_fault(self._storage, video_id) as outcome:
                tables = (read(tuple(names)) for names in (task.frames, task.events))
                of_video = [table.filter(pc.equal(table["video_id"], video_id)) for table in tables]
                export(self._storage, self._forms, *of_video)
            if outcome.reason:
                reasons[video_id] = outcome.reason
        return VideosResult(task.video_ids, reasons).to_row()
