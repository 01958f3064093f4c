"""Preprocessing without its cluster: what was asked for, the files to make, the card at the end; all of it in words."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from pydantic import field_validator

from aupipe import facs
from aupipe.affwild2.layout import EDITIONS, Layout, read_layout
from aupipe.affwild2.pack import pack_audio, pack_crops
from aupipe.affwild2.pack_videos import pack_videos
from aupipe.affwild2.plan import Plan, Source, make_plan
from aupipe.affwild2.splits import LeakFilter
from aupipe.config import Resources, Section
from aupipe.errors import DatasetError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.template import Template, template_of
from aupipe.facestore.read import sample_images
from aupipe.facestore.schema import SPLITS, StoreCard, StoreHeader
from aupipe.facestore.write import audio_name, finish
from aupipe.storage import Storage

_LICENCE = "Aff-Wild2: research only, under the agreement with its organisers"
_SAMPLED_CROPS = 400


class DataConfig(Section):
    """How the data set is read."""

    edition: Literal["abaw2", "abaw5", "abaw6"] | None = None  # default: the one whose folders are there
    leak: LeakFilter = "drop_train"  # videos that train one task and validate the other; see affwild2.splits.official

    @field_validator("leak", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads `off` as false


class PreprocessConfig(Section):
    """All settings of preprocess.py."""

    data: DataConfig = DataConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    resources: Resources = Resources()  # as every job; nothing here runs on a GPU


@dataclass(frozen=True)
class FileTask:
    """One file of the store to make."""

    name: str
    rows: int  # annotation rows that it takes a look at
    make: Callable[[], bytes]


@dataclass(frozen=True)
class Job:
    """A planned run."""

    out: str
    source: Source
    layout: Layout
    plan: Plan
    config: PreprocessConfig

    @property
    def parts(self) -> list[str]:
        return [unit.name for unit in self.plan.units]


def prepare(data: str, out: str, source: Source | None, config: PreprocessConfig) -> Job:
    """Read the layout and the annotation files, and plan the parts.

    Raises:
        DatasetError: `data` is no Aff-Wild2 folder, or has not what `source` needs.
    """
    layout = read_layout(data, config.data.edition)
    with_crops = any(track.crops for track in layout.tracks)
    with_video = any(track.video for track in layout.tracks)
    if source is None:
        source = "crops" if with_crops else "videos"
    if source == "crops" and not with_crops:
        raise DatasetError(f"{data}: no annotated video has a folder in cropped_aligned; unpack it, or --source videos")
    if source == "videos" and not with_video:
        raise DatasetError(f"{data}: no annotated video has crops or a video file; unpack batch1 and batch2")
    settings = config.model_dump(include={"detector", "alignment"}) if source == "videos" else {}
    return Job(out, source, layout, make_plan(layout, source=source, leak=config.data.leak, settings=settings), config)


def tasks(job: Job) -> list[FileTask]:
    """All files of the store but the card."""
    root = job.layout.root
    videos = pack_videos, {"root": root, "detector": job.config.detector, "alignment": job.config.alignment}
    pack, options = videos if job.source == "videos" else (pack_crops, {"root": root})
    parts = [FileTask(unit.name, unit.rows, functools.partial(pack, unit, **options)) for unit in job.plan.units]
    videos_used = sorted({(track.video_id, track.video) for track in job.layout.tracks if track.video})
    storage = Storage(root)
    sound = [
        FileTask(audio_name(video_id), 0, functools.partial(pack_audio, video_id, uri=storage.path(video)))
        for video_id, video in videos_used
    ]
    return parts + sound


def complete(job: Job) -> StoreCard:
    """Write the card, when all parts are there."""
    storage = Storage(job.out)
    template = _template(storage, job)
    settings: dict[str, str | int | float | bool | None] = {"leak": job.config.data.leak}
    if job.source == "videos":
        settings |= {
            "smoothing_radius": job.config.alignment.smoothing_radius,
            "min_score": job.config.detector.min_score,
        }
    header = StoreHeader(
        edition=job.layout.edition,
        source=f"affwild2:{job.source}",
        licence=_licence(job.layout.root),
        template=tuple((float(x), float(y)) for x, y in template.points.round(4)),
        template_source=template.source,
        n_expressions=len(EDITIONS[job.layout.edition].classes),
        settings=settings,
    )
    return finish(storage, header, job.parts, job.plan.tallies)


def describe(job: Job) -> str:
    """The plan in words."""
    layout, plan = job.layout, job.plan
    there = set(Storage(job.out).names())
    files = tasks(job)
    lines = [
        f"{layout.root}: edition {layout.edition}, {len(layout.tracks)} annotated tracks of "
        f"{len({t.video_id for t in layout.tracks})} videos, {len(layout.videos)} video files, "
        f"{len(layout.unannotated)} crop folders without annotation, {len(layout.test_lists)} test lists",
        f"source {job.source}: {sum(unit.rows for unit in plan.units):,} annotation rows in {len(files)} files, "
        f"{sum(file.name in there for file in files)} of them done",
    ]
    if plan.leaked:
        rows = sum(tally.get("au.leak", 0) + tally.get("expr.leak", 0) for tally in plan.tallies.values())
        lines.append(
            f"{len(plan.leaked)} videos train one task and validate the other: data.leak={job.config.data.leak} "
            f"takes {rows:,} labels away (drop_train | drop_val | consistent | off)"
        )
    if layout.ambiguous:
        lines.append(f"passed over, as another file has the name: {', '.join(layout.ambiguous)}")
    return "\n".join(lines)


def summary(card: StoreCard, out: str) -> str:
    """The store in words."""
    lines = []
    for split in SPLITS:
        found = card.splits[split]
        lines.append(
            f"{split}: {found.rows:,} crops of {found.videos} videos, {found.au_rows:,} with AUs, "
            f"{found.expression_rows:,} with an expression"
        )
    rates = " ".join(f"{au} {'-' if (r := card.positive_rates[au]) is None else f'{r:.3f}'}" for au in facs.AUS)
    lines.append(f"positive rates (train): {rates}")
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in card.dropped.items())
    lines.append(f"not in the store: {dropped or 'nothing'}")
    lines.extend(f"  {line}" for line in card.bad_lines[:10])
    if card.template_source == "assumed":
        lines.append("warning: no faces were found on the crops; their template is assumed to be ArcFace's")
    else:
        lines.append(f"template: {card.template_source}")
    return "\n".join([*lines, f"store: {out}"])


def _template(storage: Storage, job: Job) -> Template:
    if job.source == "videos":
        return Template(ARCFACE_TEMPLATE, "arcface", 0)
    return template_of(_decoded(sample_images(storage, job.parts, _SAMPLED_CROPS)), Detector(job.config.detector))


def _decoded(images: Iterator[bytes]) -> Iterator[np.ndarray]:
    for data in images:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            yield image


def _licence(root: str) -> str:
    """Rendered data carries its own; see synthesis."""
    storage = Storage(root)
    if not storage.exists("dataset.json"):
        return _LICENCE
    return str(json.loads(storage.read("dataset.json")).get("licence", _LICENCE))
