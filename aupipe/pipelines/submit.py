"""A submission to the AU task of the ABAW challenge, from models and the test split of a store, or from an annotation.

OUT/submission.txt        with a sample file: its lines, in its order (ABAW5 and later)
OUT/TRACK.txt             without one: a file per track, with a line per frame (ABAW3)
OUT/predictions.parquet   of models: one row per crop of the test split

Frames without a prediction are filled (see `submission.fill`), and every file passes the checker before it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from aupipe.affwild2 import submission
from aupipe.affwild2.layout import split_person, track_name
from aupipe.affwild2.submission import TrackPredictions
from aupipe.annotation.challenge import frame_counts, track_predictions
from aupipe.arrays import Floats
from aupipe.config import check_unused
from aupipe.data.sampler import track_edges
from aupipe.data.splits import SplitPart
from aupipe.errors import ConfigError, DatasetError
from aupipe.evaluation import decision
from aupipe.evaluation.settings import SubmitConfig
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import TEST
from aupipe.models import checkpoint
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.predict import check_audio, check_models, member, predict
from aupipe.pipelines.session import session
from aupipe.run_lease import run_lease
from aupipe.storage import Storage, folder_and_name

_SINGLE = "submission.txt"


@dataclass(frozen=True)
class SubmitJob:
    checkpoints: tuple[str, ...]
    store: str | None  # for checkpoints
    annotation: str | None  # output folder of annotate.py, instead of checkpoints
    sample: str | None  # the organizers' sample file
    out: str
    config: SubmitConfig


@dataclass(frozen=True)
class SubmitPlan:
    """The checked inputs of a job.

    Attributes:
        order: (track, frame) of every line of the sample file; None: a file per track.
        counts: track → number of frames.
    """

    job: SubmitJob
    order: list[tuple[str, int]] | None
    counts: Mapping[str, int]


def check(job: SubmitJob) -> SubmitPlan:
    """Check what a job needs, and return its plan. Starts nothing.

    Raises:
        ConfigError: an input of the job is invalid.
        DatasetError: a track of the sample file is not in the store or the annotation.
    """
    if job.annotation is None:
        index = FaceStore.open(str(job.store))
        _, with_audio = check_models(job.checkpoints, index, job.config.ensemble)
        known = _packed_frames(index)
        for path in with_audio:
            check_audio(path, [(index, {split_person(track)[0] for track in known})])
    else:
        ignored = "on --annotation, whose decisions are submitted; fix: leave it out, or run annotate.py with it"
        check_unused(job.config, ("ensemble", "inference"), "--set ", ignored)
        known = frame_counts(job.annotation, whole=job.sample is None)
    if job.sample is None:
        return SubmitPlan(job, None, known)
    storage, name = folder_and_name(job.sample)
    if not storage.exists(name):
        raise ConfigError(f"--sample {job.sample}: no such file; fix: give the sample file of the organizers")
    order = submission.read_order(storage.read(name).decode(errors="replace"))
    counts = submission.frame_counts(order)
    # An annotation has videos, whose people are found when their tracks are asked for.
    missing = [t for t in counts if not {t, split_person(t)[0] if job.annotation else t} & set(known)]
    if missing:
        where = job.store or job.annotation
        raise DatasetError(
            f"{len(missing)} of the {len(counts)} tracks of {job.sample} are not in {where}, the first is "
            f"{missing[0]}; fix: preprocess or annotate all test videos"
        )
    return SubmitPlan(job, order, counts)


def text(plan: SubmitPlan) -> str:
    """Return a plan for a terminal."""
    what = f"{len(plan.order):,} lines" if plan.order is not None else f"{len(plan.counts)} files"
    return f"write {what} of {len(plan.counts)} tracks to {plan.job.out}"


def submit(job: SubmitJob) -> str:
    """Write the files listed above, and return a summary.

    Raises:
        ConfigError, DatasetError: as `check`.
    """
    plan, out = check(job), Storage(job.out)
    with run_lease(out):
        if job.annotation is None:
            predictions, thresholds = _predicted(job, out)
        else:
            predictions, thresholds = track_predictions(job.annotation, plan.counts), np.array(0.5)
        empty = [track for track in plan.counts if not len(predictions[track].frames)]
        filled = submission.fill_tracks(predictions, plan.counts)
        decided = {track: decision.reaches(values, thresholds) for track, values in filled.items()}
        if plan.order is None:
            files = {f"{track}.txt": submission.write_track(rows) for track, rows in decided.items()}
            problems = [p for t, n in plan.counts.items() for p in submission.check_track(files[f"{t}.txt"], n)]
        else:
            files = {_SINGLE: submission.write_single(plan.order, decided)}
            problems = submission.check_single(files[_SINGLE], plan.order)
        if problems:
            raise DatasetError(f"the submission is invalid: {'; '.join(problems[:5])}")
        for name, content in files.items():
            out.write(name, content.encode())
    frames = sum(plan.counts.values())
    with_face = sum(
        int(((p.frames >= 1) & (p.frames <= plan.counts[t])).sum()) for t, p in predictions.items() if t in plan.counts
    )
    without = f"; without any face, so 0 everywhere: {', '.join(empty)}" if empty else ""
    return (
        f"{len(plan.counts)} tracks, {frames:,} frames, of which {frames - with_face:,} were filled{without}\n"
        f"submission: {out.path(_SINGLE) if plan.order is not None else job.out}"
    )


def _packed_frames(index: FaceStore) -> dict[str, int]:
    """Return test track → number of frames: those in the store, and those that were dropped."""
    card = index.card
    frames: Counter[str] = Counter()
    for shard in card.shards:
        if shard.split == TEST:
            frames.update({track_name(span.video_id, span.person): span.rows for span in shard.spans})
    for track, dropped in card.mismatches.items():
        lost = sum(n for reason, n in dropped.items() if reason.startswith(f"{TEST}."))
        if lost and not {f"{TEST}.no_crops", f"{TEST}.no_videos"} & set(dropped):
            frames[track] += lost
    if not frames:
        raise DatasetError(
            f"{index.storage.root} has no test split; fix: run preprocess.py on a folder with the crops or videos of "
            "the test set"
        )
    return dict(sorted(frames.items()))


def _predicted(job: SubmitJob, out: Storage) -> tuple[dict[str, TrackPredictions], Floats]:
    """Return the predictions of the test tracks by the models, and the thresholds (12,) or () for them."""
    index, part = FaceStore.open(str(job.store)), SplitPart(TEST)
    cards = [checkpoint.load_card(path) for path in job.checkpoints]
    with session(job.config.resources):
        check_visible_on_all_nodes(job.out, [str(job.store), *job.checkpoints])
        found = predict(job.checkpoints, index, (part,), job.config.inference, job.config.resources)[part]
    members = [member(card, raw) for card, raw in zip(cards, found, strict=True)]
    *_, final = decision.decide(members, job.config.ensemble).values()
    rows = final.predictions
    out.write("predictions.parquet", rows.to_parquet(final.decided))
    # A vote has no common threshold, so its decisions are filled instead of probabilities.
    values = rows.probabilities if final.thresholds is not None else final.decided.astype(np.float64)
    nothing = TrackPredictions(np.empty(0, np.int64), np.empty((0, values.shape[1])))
    tracks = dict.fromkeys(_packed_frames(index), nothing)
    for start, stop in pairwise(track_edges(rows.video_id, rows.person).tolist()):
        name = track_name(rows.video_id[start], rows.person[start])
        tracks[name] = TrackPredictions(rows.frame[start:stop], values[start:stop])
    return tracks, np.array(0.5) if final.thresholds is None else final.thresholds
