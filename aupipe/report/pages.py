"""The pages of an annotation: an index and a page per video, which open from disk without a server or network.

Each page contains its data, script and style. Its content security policy allows only that script and style, by their
hashes, and the video or image file, so that text from an annotation can neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aupipe import facs
from aupipe.annotation import report_files
from aupipe.annotation.faults import is_shortage
from aupipe.annotation.progress import JobProgress
from aupipe.annotation.report_files import INDEX, SUMMARY
from aupipe.errors import ConfigError, DatasetError, MediaError, printable, redact
from aupipe.media.image_files import has_image_suffix, is_sequence
from aupipe.media.probe import fingerprint
from aupipe.parquet import damage_named, read_stored
from aupipe.report import face_data, overlay, thumbnails
from aupipe.report.annotation_tables import AnnotationTables
from aupipe.storage import Storage, absolute_path, is_uri

logger = logging.getLogger(__name__)

_LOGGED = 20  # videos whose problems are logged; all pages of an archive that has moved have some
MAX_FACES = 24  # faces per page, those in most frames; the page names the number of others


_SUMMARY_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()), ("face_id", pa.int32()), ("frames", pa.int64()), ("au", pa.string()),
        ("rate", pa.float64()), ("mean", pa.float64()), ("events", pa.int64()), ("events_s", pa.float64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class ReportJob:
    """The pages to write.

    Attributes:
        annotation: output folder or URI of `annotate.py`.
        out: folder or URI of the pages.
        thumbnails: decode the videos for pictures of the strongest events.
        overlay: decode the videos and write each with its faces drawn.
        preview: decode the videos that browsers do not play, and write each for the player.
    """

    annotation: str
    out: str
    thumbnails: bool = True
    overlay: bool = False
    preview: bool = False


@dataclass(frozen=True)
class Timeline:
    """The horizontal axis of a page.

    Attributes:
        name: `time_s`, or `frame` if the video has frames without a time or its clock restarts.
        faces: the rows of each face by face_id, in order of the axis; those in most frames first.
        statuses: runs of frames of one status: first and last value on the axis, and the status.
    """

    name: str
    faces: Mapping[int, pa.Table]
    statuses: Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class ReportPlan:
    """The annotation of a job.

    Attributes:
        videos: the rows of videos.parquet, ordered by video_id.
        run: run.json; {} if a run has not ended.
    """

    job: ReportJob
    videos: list[dict[str, Any]]
    run: dict[str, Any]


def check(job: ReportJob) -> ReportPlan:
    """Check that there is an annotation, and return the plan. Writes nothing.

    Raises:
        ConfigError: there is no annotation.
    """
    return ReportPlan(job, *_read(Storage(job.annotation)))


def text(plan: ReportPlan) -> str:
    """Return a plan for a terminal."""
    return f"would write {redact(plan.job.out)}/{INDEX} and the pages of {len(plan.videos)} videos"


def write(job: ReportJob) -> str:
    """Write the pages, and return the path or URI of the index.

    Files of single videos are numbered, so those of an earlier report that this one has not replaced may show videos
    that the annotation no longer has. They are deleted.

    Raises:
        ConfigError: there is no annotation.
    """
    source, target = Storage(job.annotation), Storage(job.out)
    plan = check(job)
    videos, run = plan.videos, plan.run
    tables = AnnotationTables(source)
    pages: dict[str, str] = {}
    rates: dict[str, Sequence[float | None]] = {}
    summaries: list[dict[str, Any]] = []
    written = set[str]()
    if (job.overlay or job.preview) and not all(map(target.exists, (SUMMARY, INDEX))):
        # `annotate` knows a report by these files, also one whose writing was killed.
        _write_overview(target, plan, {}, {}, ())
    problems = 0
    for number, video in enumerate(_counted(videos)):
        video_id = video["video_id"]
        frames, events = tables.frames(video_id), tables.events(video_id)
        if not len(frames):
            if video["status"] in ("ok", "partial"):
                raise DatasetError(
                    f"{job.annotation}: no rows of {video_id} in frames; fix: copy the whole folder, or annotate again"
                )
            continue
        pages[video_id] = report_files.page(number)
        rates[video_id] = [pc.mean(frames[au].cast(pa.float64())).as_py() for au in facs.AUS]
        axis = timeline(frames)
        of_face = {face: events.filter(pc.equal(events["face_id"], face)) for face in axis.faces}
        of_aus = {face: face_data.summarize(rows, of_face[face]) for face, rows in axis.faces.items()}
        summaries += _summaries(video_id, axis, of_aus)
        is_decoded = job.overlay or job.preview or (job.thumbnails and len(events) > 0)
        changed = _changed(video) if is_decoded else ""
        data = video_data(video, axis, of_face, of_aus, run.get("thresholds"), job.thumbnails and not changed)
        data["problem"] = data["problem"] or changed
        link = None if changed else _link(video["uri"], target, "videos")
        drawn = report_files.overlay(number) if job.overlay and not changed else None
        is_previewed = job.preview and not changed and not (link and _plays(video["uri"]))
        plain = report_files.preview(number) if is_previewed else None
        for name, draws in ((drawn, True), (plain, False)):
            if name:
                try:
                    drawing = _overlay(video, frames, run.get("thresholds"), draws)
                except (MediaError, OSError) as error:
                    if is_shortage(error):
                        raise
                    data["problem"] = f"{data['problem']} No {name}: {redact(str(error))}".strip()
                else:
                    target.write(name, drawing)
                    written.add(name)
                    del drawing  # Otherwise memory would hold it while the next one, of perhaps a gigabyte, is read.
        if data["problem"] and (problems := problems + 1) <= _LOGGED:
            logger.warning("%s: %s", printable(video_id), data["problem"])
        shown = f"../{plain}" if plain in written else link
        page = video_page(video, data, shown, drawn if drawn in written else None)
        target.write(pages[video_id], page.encode())
        written.add(pages[video_id])
    if problems > _LOGGED:
        logger.warning("%s further videos have such problems, which their pages name", f"{problems - _LOGGED:,}")
    _write_overview(target, plan, pages, rates, summaries)
    report_files.delete_others(target, written)
    return redact(target.path(INDEX))


def _counted(videos: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the videos, and show the progress of what the caller does with them."""
    progress = JobProgress()
    progress.expect_videos(len(videos), sum(video["frames_decoded"] or 0 for video in videos))
    try:
        for video in videos:
            yield video
            progress.add_frames(video["frames_decoded"] or 0, {})
            progress.add_videos(1)
    finally:
        progress.close()


def _write_overview(
    target: Storage, plan: ReportPlan, pages: Mapping[str, str], rates: Mapping[str, Sequence[float | None]],
    summaries: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    """Write the index and the table of all faces."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.Table.from_pylist(summaries, schema=_SUMMARY_SCHEMA), sink)
    target.write(SUMMARY, sink.getvalue())
    target.write(INDEX, index_page(plan.videos, plan.run, pages, rates).encode())


def _summaries(
    video_id: str, axis: Timeline, of_aus: Mapping[int, Sequence[face_data.AuSummary]]
) -> list[dict[str, Any]]:
    """Return one row per face and AU of a video."""
    return [
        {"video_id": video_id, "face_id": face, "frames": len(axis.faces[face]), "au": au, **asdict(summary)}
        for face, summaries in sorted(of_aus.items())
        for au, summary in zip(facs.AUS, summaries, strict=True)
    ]


def timeline(frames: pa.Table) -> Timeline:
    """Return the axis of a video's frames table, and the rows of its faces on it."""
    frames = frames.sort_by([("frame", "ascending"), ("face_id", "ascending")])
    times_s = frames["time_s"]
    has_clock = times_s.null_count == 0 and bool((np.diff(times_s.to_numpy()) >= 0).all())
    name = "time_s" if has_clock else "frame"
    with_face = frames.filter(pc.is_valid(frames["face_id"]))
    ids, counts = np.unique(with_face["face_id"].to_numpy(), return_counts=True)
    most_frequent = ids[np.argsort(-counts, kind="stable")]
    faces = {int(face): with_face.filter(pc.equal(with_face["face_id"], int(face))) for face in most_frequent}
    x, status = frames[name].to_numpy(), np.asarray(frames["status"].to_pylist())
    firsts = np.flatnonzero(np.r_[True, status[1:] != status[:-1]])
    lasts = np.r_[firsts[1:], len(status) - 1]
    return Timeline(
        name, faces, [(float(x[a]), float(x[b]), str(status[a])) for a, b in zip(firsts, lasts, strict=True)]
    )


def video_data(
    video: Mapping[str, Any], axis: Timeline, events: Mapping[int, pa.Table],
    of_aus: Mapping[int, Sequence[face_data.AuSummary]], thresholds: Mapping[str, float] | None, with_thumbnails: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return the data of a page as `page.js` reads them, at most about 20 MB of JSON.

    Args:
        video: row of the videos table.
        axis: its rows of the frames table.
        events: its rows of the events table by face_id.
        of_aus: the summaries of each face's AUs.
        thresholds: per AU; None: not drawn, as where several models vote.
        with_thumbnails: decode the video.
    """
    shown = dict(list(axis.faces.items())[:MAX_FACES])
    first = axis.statuses[0][0]
    factor = max(1, -(-sum(map(len, shown.values())) // face_data.MAX_ROWS))
    ends = ("onset_s", "apex_s", "offset_s") if axis.name == "time_s" else ("onset_frame", "apex_frame", "offset_frame")
    pictures, problem = {}, ""
    if with_thumbnails:
        try:
            pictures = thumbnails.strongest(video["uri"], video["track"], shown, events)
        except (MediaError, OSError) as error:
            problem = f"No pictures of the apexes: {redact(str(error))}"
    return {
        "axis": axis.name, "thresholds": [thresholds[au] for au in facs.AUS] if thresholds else None,
        "aus": [[au, facs.AU_NAMES[au]] for au in facs.AUS],
        "width": video["frame_width"], "height": video["frame_height"],
        "statuses": axis.statuses, "hidden_faces": len(axis.faces) - len(shown), "problem": problem,
        "faces": [
            {
                "id": face, "frames": len(rows), **face_data.pack(rows, rows[axis.name].to_numpy() - first, factor),
                "summary": [asdict(each) for each in of_aus[face]],
                "events": [
                    [facs.AUS.index(e["au"]), *(e[name] for name in ends), e["peak"]]
                    for e in events[face].sort_by(ends[0]).to_pylist()
                ],
                "pictures": [
                    {"au": p.au, "x": p.time_s if axis.name == "time_s" else p.frame, "peak": p.peak,
                     "src": "data:image/jpeg;base64," + base64.b64encode(p.jpeg).decode()}
                    for p in pictures.get(face, ())
                ],
            }
            for face, rows in shown.items()
        ],
    }  # fmt: skip


def video_page(
    video: Mapping[str, Any], data: Mapping[str, Any], source: str | None, overlay_name: str | None = None
) -> str:
    """Return the page of one video.

    Args:
        video: row of the videos table.
        data: of `video_data`.
        source: URL of the video for the player, or of the image; None: there is none, and the page has no player.
        overlay_name: name of the video with its faces drawn, beside the index; None: there is none.
    """
    name = html.escape(video["video_id"])
    facts = [
        f"{video['frames_decoded'] or 0:,} of {video['frames_expected'] or 0:,} frames decoded",
        f"{video['faces'] or 0:,} {'face' if video['faces'] == 1 else 'faces'}", _duration(video["duration_s"]),
        f"status {video['status']}", video["reason"],
    ]  # fmt: skip
    overlay_link = f' · <a href="../{overlay_name}">video with its faces drawn</a>' if overlay_name else ""
    body = f"""<p><a href="../{INDEX}">← all videos</a>{overlay_link}</p>
<h1>{name}</h1><p class="facts">{html.escape(" · ".join(filter(None, facts)))}</p>
<div class="columns"><section aria-label="player">{_player(video["uri"], source)}
<p id="now" role="status"></p></section>
<section aria-label="face"><label>Face <select id="face"></select></label> <span id="hidden"></span>
<div id="pictures"></div><p id="problem"></p></section></div>
<section><h2>Action Units over time</h2>
<p class="legend"><i class="raw"></i> probability <i class="prob"></i> smoothed <i class="line"></i> threshold
<i class="event"></i> event. Below: blue where a frame has a face, gray where it has none, orange where the face is too
small, pink where it was not decoded; and the score of the face detector.</p>
<canvas id="curves" tabindex="0" aria-label="Action Unit curves: click to go to a time"></canvas>
<p class="hint">Click: go there. Wheel, + and −: zoom. Drag: pan. 0: all. Arrows: one frame. Space: play. N and P: next
and previous event. F: next face.</p></section>
<section><h2>Rates of this face</h2><div class="wide"><table id="rates"></table></div></section>
<section><h2>Co-occurrence</h2><p>Share of the frames with the row's AU that also have the column's.</p>
<div class="wide"><table id="together"></table></div></section>
<script type="application/json" id="data">{_json(data)}</script>"""
    return _page(video["video_id"], body, _asset("page.js"))


def _player(uri: str, source: str | None) -> str:
    """Return the element that shows a video or an image below its boxes, or the reason why there is none."""
    if source is None and is_sequence(uri):
        return '<p id="unplayable">A folder of images has no player here; report.py --preview writes a video of it.</p>'
    if source is None:
        return (
            '<p id="unplayable">The file is not on a local disk, is gone or has changed, so that this page has no '
            "player.</p>"
        )
    url = html.escape(source)
    element = f'<video id="video" controls preload="metadata" src="{url}"></video>'
    action = "play the video, of which report.py --preview writes one that it can play"
    if has_image_suffix(source):
        element, action = f'<img id="still" alt="the image" src="{url}">', "show the image"
    return (
        f'<div id="screen">{element}<canvas id="overlay"></canvas></div><p id="unplayable" hidden>This browser cannot '
        f"{action}. The curves work without it.</p>"
    )


def index_page(
    videos: Sequence[Mapping[str, Any]], run: Mapping[str, Any], pages: Mapping[str, str],
    rates: Mapping[str, Sequence[float | None]],
) -> str:  # fmt: skip
    """Return the overview.

    Args:
        videos: rows of the videos table.
        run: content of run.json.
        pages: path of a video's page, by video_id.
        rates: share of rows with each AU, by video_id.
    """
    statuses = {s: sum(v["status"] == s for v in videos) for s in ("ok", "partial", "quarantined", "duplicate")}
    tiles = [
        (f"{len(videos):,}", "videos"), *((f"{n:,}", s) for s, n in statuses.items() if n),
        (f"{sum(v['frames_decoded'] or 0 for v in videos):,}", "frames decoded"),
        (f"{sum(v['frames_lost'] or 0 for v in videos):,}", "frames lost"),
        (f"{sum(v['faces'] or 0 for v in videos):,}", "faces"),
        (_duration(sum(v["duration_s"] or 0 for v in videos)), "of video"),
        (_duration(sum(v["work_s"] or 0 for v in videos)), "of CPU time"),
        *([(f"{run['cost']:.2f}", "cost of the last run")] if run.get("cost") else []),
    ]  # fmt: skip
    boxes = "".join(f"<li><b>{html.escape(n)}</b> {html.escape(label)}</li>" for n, label in tiles)
    aus = "".join(f'<th scope="col" title="{facs.AU_NAMES[au]}">{au}</th>' for au in facs.AUS)
    rows = "".join(_video_row(video, pages.get(video["video_id"]), rates.get(video["video_id"])) for video in videos)
    body = f"""<h1>Action Units</h1><ul class="tiles">{boxes}</ul>
<section><h2>Videos</h2><p>AU columns: share of face rows in which the AU is present.</p>
<p><a href="{SUMMARY}">{SUMMARY}</a>: rate, mean, events and seconds in events of every face.</p>
<div class="wide"><table><thead><tr><th scope="col">video</th><th scope="col">status</th><th scope="col">frames</th>
<th scope="col">faces</th><th scope="col">length</th>{aus}</tr></thead><tbody>{rows}</tbody></table></div></section>
<p class="hint">An AU is a movement, not an emotion or a proof of intent. Compare within a person: a resting face shifts
all scores.</p>"""
    return _page("aupipe report", body, "")


def _video_row(video: Mapping[str, Any], page: str | None, rates: Sequence[float | None] | None) -> str:
    name = html.escape(video["video_id"])
    title = f'<a href="{page}">{name}</a>' if page else name
    reason = f"<br><small>{html.escape(video['reason'])}</small>" if video["reason"] else ""
    shares = "".join(
        "<td>–</td>" if rate is None else f'<td class="heat{min(5, int(rate * 6))}">{rate:.0%}</td>'
        for rate in rates or [None] * len(facs.AUS)
    )
    return (
        f'<tr><th scope="row">{title}{reason}</th><td class="{html.escape(video["status"])}">'
        f"{html.escape(video['status'])}</td><td>{video['frames_decoded'] or 0:,}</td><td>{video['faces'] or 0:,}</td>"
        f"<td>{_duration(video['duration_s'])}</td>{shares}</tr>"
    )


def _page(title: str, body: str, script: str) -> str:
    style = _asset("page.css")
    element = f"<script>{script}</script>" if script else ""
    scripts = f"'{_hash(script)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src {scripts}; "
        "img-src data: 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f"<style>{style}</style></head>"
        f"<body><main>{body}</main>{element}</body></html>\n"
    )


def _asset(name: str) -> str:
    return (files("aupipe.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: Mapping[str, Any]) -> str:
    """Return JSON in which no text can end the script element that contains it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _overlay(
    video: Mapping[str, Any], frames: pa.Table, thresholds: Mapping[str, float] | None, draws: bool
) -> bytes:  # fmt: skip
    """Return an overlay. It is written to a temporary file, because an MP4 is not written in one pass."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "overlay.mp4")
        overlay.write_overlay(path, video["uri"], video["track"], frames, thresholds, draws)
        with open(path, "rb") as file:
            return file.read()


def _changed(video: Mapping[str, Any]) -> str:
    """Return a message if the file has other bytes than when it was annotated, so that nothing of it is shown.

    A file that cannot be read is left to the functions that show it.
    """
    try:
        is_same = video["fingerprint"] in (None, fingerprint(video["uri"]))
    except (MediaError, OSError):
        return ""
    if is_same:
        return ""
    return f"{redact(video['uri'])} has changed since it was annotated, and is not shown; annotate it again"


def _plays(uri: str) -> bool:
    try:
        return overlay.plays_in_browsers(uri)
    except (MediaError, OSError):
        return True  # A preview of it would fail for the same reason.


def _link(uri: str, target: Storage, folder: str) -> str | None:
    """Return the URL of a local video in a page of `folder`: relative where the pages are local too."""
    if is_uri(uri) or not target.local or not os.path.isfile(uri):
        return None
    return quote(os.path.relpath(absolute_path(uri), target.path(folder)))


def _read(storage: Storage) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of videos.parquet, ordered by video_id, and run.json ({} if a run has not ended)."""
    if not storage.exists("videos.parquet"):
        raise ConfigError(
            f"{redact(storage.root)}: no annotation (a folder with videos.parquet); fix: annotate.py INPUT --out DIR"
        )
    videos = read_stored(storage, "videos.parquet").sort_by("video_id").to_pylist()
    if not storage.exists("run.json"):
        return videos, {}
    data = storage.read("run.json")
    with damage_named(storage.path("run.json")):
        return videos, json.loads(data)
