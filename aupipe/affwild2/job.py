"""Preprocessing of Aff-Wild2 without the cluster: configuration, files to make, and the card of the store."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Literal

from aupipe.affwild2 import pack_videos
from aupipe.affwild2.layout import EDITIONS, Layout, Track, read_layout
from aupipe.affwild2.pack import AUDIO_METHOD, pack_audio, pack_crops
from aupipe.affwild2.plan import Plan, Source, make_plan
from aupipe.config import Resources, Section
from aupipe.errors import DatasetError
from aupipe.faces import align, detect
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.search import SearchConfig
from aupipe.faces.template import Template
from aupipe.facestore.job import FileTask, measured_template
from aupipe.facestore.schema import TEST, StoreCard, StoreHeader
from aupipe.facestore.write import audio_mark, audio_name, finish
from aupipe.storage import Storage

_LICENSE = "Aff-Wild2: research only, under the agreement with its organizers"


class AffWild2DataConfig(Section):
    """Settings for reading the data set."""

    edition: Literal["abaw2", "abaw5", "abaw6", "mtl"] | None = None  # default: the edition whose folders exist


class PreprocessConfig(Section):
    """All settings of preprocess.py."""

    data: AffWild2DataConfig = AffWild2DataConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    search: SearchConfig = SearchConfig()
    resources: Resources = Resources()  # as in every job; preprocessing uses no GPU


@dataclass(frozen=True)
class AffWild2Job:
    """A planned run."""

    out: str
    source: Source
    layout: Layout
    plan: Plan
    config: PreprocessConfig

    @property
    def origin(self) -> str:
        """Source of the store, for its card."""
        return f"affwild2:{self.source}"

    @property
    def parts(self) -> list[str]:
        """File names of the parts."""
        return [unit.name for unit in self.plan.units]

    def _tests(self) -> list[Track]:
        """Return the test tracks that are packed."""
        packed = {
            track.name for unit in self.plan.units if unit.split == TEST for p in unit.pieces for track in p.tracks
        }
        return [track for track in self.layout.tests if track.name in packed]

    def files(self) -> list[FileTask]:
        """Return all files of the store except the card."""
        root = self.layout.root
        config = self.config
        of_videos = {"detector": config.detector, "alignment": config.alignment, "search": config.search}
        own = pack_videos.pack_videos, {"root": root, **of_videos}
        pack, options = own if self.source == "videos" else (pack_crops, {"root": root})
        parts = [FileTask(unit.name, unit.rows, functools.partial(pack, unit, **options)) for unit in self.plan.units]
        videos = {track.video_id: track.video for track in (*self.layout.tracks, *self._tests()) if track.video}
        for name, file in sorted(videos.items()):
            make = functools.partial(pack_audio, name, root=root, video=file)
            mark = audio_mark(name, f"{file}\0{self.plan.videos[file]}\0{AUDIO_METHOD}")
            parts.append(FileTask(audio_name(name), 0, make, mark))
        return parts

    def complete(self) -> StoreCard:
        """Write the card. Call it when all parts are written."""
        config = self.config
        settings: dict[str, str | int | float | bool | None] = {}
        if self.source == "videos":
            settings["smoothing_radius"] = config.alignment.smoothing_radius
            settings["min_score"] = config.detector.min_score
            settings["search_every"] = config.search.every
            template = Template(ARCFACE_TEMPLATE, "arcface", 0)
        else:
            template = measured_template(self.out, self.parts, Detector(config.detector))
        header = StoreHeader(
            edition=self.layout.edition,
            source=self.origin,
            license=_license(self.layout.root),
            template=template.as_tuples(),
            template_source=template.source,
            n_expressions=len(EDITIONS[self.layout.edition].classes),
            settings=settings,
        )
        return finish(Storage(self.out), header, self.parts, self.plan.outcomes)

    def text(self) -> str:
        """Return the plan, except for the files, as text."""
        layout, plan = self.layout, self.plan
        lines = [
            f"{layout.root}: edition {layout.edition}, {len(layout.tracks)} annotated tracks of "
            f"{len({track.video_id for track in layout.tracks})} videos, {len(layout.videos)} video files, "
            f"{len(self._tests())} of {len(layout.tests)} test tracks with {self.source}, "
            f"{len(layout.test_lists)} test lists; "
            f"source: {self.source}"
        ]
        if plan.leaked:
            lines.append(
                f"{len(plan.leaked)} videos are in train for one task and in validation for the other; the store has "
                "both, and a recipe's stages.STAGE.tasks.TASK.data.leak chooses (drop_train | drop_val | off)"
            )
        if layout.ambiguous:
            lines.append(f"skipped, because another file has the same name: {', '.join(layout.ambiguous)}")
        return "\n".join(lines)


def prepare(data: str, out: str, source: Source | None, config: PreprocessConfig) -> AffWild2Job:
    """Read the layout and the annotation files, and plan the parts.

    Raises:
        DatasetError: `data` is not an Aff-Wild2 folder, or lacks the files that `source` needs.
    """
    layout = read_layout(data, config.data.edition)
    with_crops = any(track.crops for track in layout.tracks)
    with_video = any(track.video for track in layout.tracks)
    if source is None and layout.packs and not with_crops:
        raise DatasetError(
            f"{data}: crops were found (in {layout.packs[0]}), but none of an annotated video; "
            "fix: unpack the crops of all videos, or decode the videos with --source videos"
        )
    if source is None:
        source = "crops" if with_crops else "videos"
    if source == "crops" and not with_crops:
        raise DatasetError(
            f"{data}: no annotated video has a folder in cropped_aligned; unpack it, or use --source videos"
        )
    if source == "videos" and not with_video:
        raise DatasetError(f"{data}: no annotated video has crops or a video file; unpack batch1 and batch2")
    settings: dict[str, Any] = {}
    if source == "videos":
        methods = {"methods": [detect.METHOD, align.METHOD, pack_videos.METHOD]}
        settings = config.model_dump(include={"detector", "alignment", "search"}) | methods
    return AffWild2Job(out, source, layout, make_plan(layout, source=source, settings=settings), config)


def is_official(card: StoreCard) -> bool:
    """Return whether a store was made from Aff-Wild2 itself, not from rendered data in its layout or other images."""
    return card.source.startswith("affwild2:") and card.license == _LICENSE


def _license(root: str) -> str:
    """Return the license of the data set; rendered data sets contain their own (see synthesis)."""
    storage = Storage(root)
    if not storage.exists("dataset.json"):
        return _LICENSE
    return str(json.loads(storage.read("dataset.json")).get("license", _LICENSE))
