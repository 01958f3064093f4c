"""More than 200 unusual clips and files that are no videos, each with the annotation that is expected of it.

A case states the number of frames to be presented, their times, and the codes that its reason may begin with where its
status is not `ok`.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from aupipe.errors import ConfigError
from harness import frame_accounting, oddities, processes
from harness.clips import damage, from_key_frame, hole, scene, sound, speaking, truncate, write_clip
from harness.random_model import save_multimodal

COUNT = 24
RATE = [Fraction(n, 25) for n in range(COUNT)]
LATE = [5000 + 40 * n for n in range(COUNT)]
VARIABLE = [0, 33, 70, *(70 + 97 * n for n in range(1, COUNT - 2))]
HIDDEN = [40 * n - 200 for n in range(COUNT)]  # a negative first time becomes an edit list that hides five frames

# Codes of damaged files; the last one is for a frame that is present but incomplete.
LOSSES = ("frames_lost", "truncated", "container_damaged", "frames_corrupt")

_QUICK = {
    "libx264": {"preset": "ultrafast", "g": "8"},
    "libx265": {"preset": "ultrafast", "g": "8", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "8"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "g": "8"},
    "libsvtav1": {"preset": "11", "g": "8", "svtav1-params": "lp=1"},
    "mpeg4": {"g": "8"},
    "mpeg2video": {"g": "8"},
    "ffv1": {"g": "8"},
}
# Codec → its short name, its containers, and its pixel format where that is not yuv420p.
_KINDS = {
    "libx264": ("h264", "mp4 mov mkv avi mpg ts flv", None), "libx265": ("hevc", "mp4 mov mkv ts", None),
    "libvpx-vp9": ("vp9", "webm mkv mp4", None), "libvpx": ("vp8", "webm mkv", None),
    "libsvtav1": ("av1", "mp4 webm", None), "mpeg4": ("mpeg4", "mp4 mov mkv avi", None),
    "mjpeg": ("mjpeg", "avi mov mkv mp4", None), "mpeg2video": ("mpeg2", "mpg mkv ts mp4", None),
    "mpeg1video": ("mpeg1", "mpg", None), "ffv1": ("ffv1", "mkv avi", None), "prores": ("prores", "mov", "yuv422p10le"),
    "wmv2": ("wmv2", "wmv avi", None), "flv": ("flv1", "flv", None), "huffyuv": ("huffyuv", "avi", "yuv422p"),
    "png": ("png", "mov", "rgb24"), "qtrle": ("qtrle", "mov", "rgb24"), "gif": ("gif", "gif", "rgb8"),
}  # fmt: skip
_EXACT_TIMES = (
    "mp4",
    "mov",
    "mkv",
    "webm",
    "avi",
    "gif",
    "wmv",
)  # other containers add a delay of their own to all times
_TIMED = ("mp4", "mov", "mkv", "webm")
_START_S, _CASE_S = 300.0, 20.0  # seconds for the start, and per case on average, after which the job counts as hanging


@dataclass(frozen=True)
class VideoCase:
    """One clip and its expected annotation.

    Attributes:
        name: name of the file.
        make: function that writes the clip to a path.
        frames: number of frames to be presented; None: as many as an independent reading finds.
        times: times of the frames in seconds; None: those that an independent reading finds.
        codes: codes that the reason may begin with; a clip without codes must have no loss and no reason.
        rotation: rotation in degrees.
    """

    name: str
    make: Callable[[Path], object]
    frames: int | None = COUNT
    times: list[Fraction] | None = None
    codes: tuple[str, ...] = ()
    rotation: int = 0

    def write(self, folder: Path) -> Path:
        """Write the clip to a folder."""
        path = folder / self.name
        self.make(path)
        return path

    def complaints(
        self, path: Path, record: Mapping[str, Any], frames: Sequence[int], times: Sequence[float | None]
    ) -> list[str]:
        """Return the errors of the clip's annotation, by an independent reading and by the expectation.

        Args:
            path: path of the clip.
            record: its row of videos.parquet.
            frames: frame numbers of its rows, one per frame, in order.
            times: times of the same rows in seconds.
        """
        code = (record["reason"] or "").partition(":")[0]
        if record["status"] == "duplicate":
            return ["a duplicate"]
        if record["status"] == "quarantined":
            return [] if code in self.codes else [f"quarantined: {record['reason']}"]
        reading = frame_accounting.read(path)
        if reading is None:
            return ["plain PyAV cannot read it"]
        found = frame_accounting.complaints(record, frames, times, reading)
        if code and code not in self.codes:
            found.append(f"unexpected: {record['reason']}")
        if self.codes and not code and len(frames) < COUNT:
            found.append(f"{COUNT - len(frames)} frames are lost without a report")
        if self.frames is not None and len(frames) != self.frames:
            found.append(f"{len(frames)} rows instead of {self.frames}")
        elif self.times is not None:
            found += frame_accounting.wrong_times(times, self.times, reading.tick)
        if record["rotation"] % 360 != self.rotation:
            found.append(f"rotated by {record['rotation']}")
        return found


def video_cases() -> Iterator[VideoCase]:
    """Yield all cases."""
    yield from _kinds()
    yield from _times()
    yield from _shapes()
    yield from _odd_structures()
    yield from _odd_pictures()
    yield from _without_clock()
    yield from _damaged()
    yield from _misnamed()
    yield from _no_videos()


def complaints_of_output(folder: Path, out: Path, cases: Iterable[VideoCase]) -> dict[str, list[str]]:
    """Return the errors of each case whose annotation has any.

    Args:
        folder: folder that contains the clips.
        out: output folder of the annotation.
    """
    records, rows = frame_accounting.read_output(out)
    found: dict[str, list[str]] = {}
    for case in cases:
        record, (frames, times) = records.get(case.name), rows.get(case.name, ([], []))
        wrong = ["no record"] if record is None else case.complaints(folder / case.name, record, frames, times)
        found |= {case.name: wrong} if wrong else {}
    return found


def measure(only: str = "") -> dict[str, Any]:
    """Return the totals and errors of `annotate.py` on all cases.

    `exit` is None where the job hung, and `sound` is true where no error was found.

    Args:
        only: text that the names of the used cases contain.

    Raises:
        ConfigError: no case has such a name.
    """
    cases = [case for case in video_cases() if only in case.name]
    if not cases:
        raise ConfigError(f"--only {only}: no case has this text in its name")
    with tempfile.TemporaryDirectory() as scratch:
        folder, out, model = (Path(scratch) / name for name in ("in", "out", "model"))
        folder.mkdir()
        for case in cases:
            case.write(folder)
        save_multimodal(model)
        command = processes.command(
            "annotate", "--input", str(folder), "--checkpoint", str(model), "--out", str(out)
        )  # fmt: skip
        code, seconds = processes.run(command, limit_s=_START_S + len(cases) * _CASE_S)
        complete = (out / "videos.parquet").exists()
        records = frame_accounting.read_output(out)[0].values() if complete else ()
        complaints = complaints_of_output(folder, out, cases) if complete else {"all": ["no tables"]}
    statuses = Counter[str](record["status"] for record in records)
    reasons = Counter[str]((record["reason"] or "none").partition(":")[0] for record in records)
    return {
        "cases": len(cases), "sound": code in (0, 3) and not complaints, "exit": code, "seconds": seconds,
        "statuses": dict(sorted(statuses.items())), "reasons": dict(sorted(reasons.items())), "complaints": complaints,
    }  # fmt: skip


def _kinds() -> Iterator[VideoCase]:
    for codec, (short, suffixes, _) in _KINDS.items():
        for suffix in suffixes.split():
            times = RATE if suffix in _EXACT_TIMES else None
            yield VideoCase(f"{short}.{suffix}", _clip(codec), times=times)
            # x265 gives a single frame a random decoding time, if there can be B frames.
            single = _clip(codec, count=1, bf="0") if codec == "libx265" else _clip(codec, count=1)
            yield VideoCase(f"{short} one frame.{suffix}", single, 1, times and RATE[:1])
            if codec in ("libx264", "libx265", "mpeg4", "mpeg2video"):
                yield VideoCase(f"{short} b-frames.{suffix}", _clip(codec, bf="2"), times=times)
            if short in ("h264", "hevc") and suffix != "avi":
                parameters = "open-gop=1" + (":log-level=none:pools=none:frame-threads=1" if short == "hevc" else "")
                options: dict[str, Any] = {"preset": "veryfast", "bf": "3", f"{codec[3:]}-params": parameters}
                yield VideoCase(f"{short} open gop.{suffix}", _clip(codec, **options), times=times)
    progressive: dict[str, Any] = {"x264-params": "tff=1", "preset": "veryfast"}
    interlaced: dict[str, Any] = {"flags": "+ilme+ildct", "bf": "2", "top": "1"}
    yield VideoCase("interlaced.mp4", _clip("libx264", **progressive), times=RATE)
    yield VideoCase("interlaced.mpg", _clip("mpeg2video", **interlaced))
    yield VideoCase("with sound.mkv", lambda path: speaking(path, _images((96, 72))), times=RATE)
    yield VideoCase("fragments.mp4", _clip("libx264", muxer={"movflags": "frag_keyframe+empty_moov"}), times=RATE)
    yield VideoCase("fast start.mp4", _clip("libx264", muxer={"movflags": "faststart"}), times=RATE)
    yield VideoCase("live.mkv", _clip("libx264", muxer={"live": "1"}), times=RATE)
    yield VideoCase("two tracks.mp4", _two_tracks, times=RATE)
    yield VideoCase("ten bit.mkv", _clip("ffv1", pix_fmt="yuv420p10le"), times=RATE)
    yield VideoCase("gray.mkv", _clip("ffv1", pix_fmt="gray"), times=RATE)
    yield VideoCase("alpha.mov", _clip("png", pix_fmt="rgba"), times=RATE)
    yield VideoCase("444.mp4", _clip("libx264", pix_fmt="yuv444p"), times=RATE)


def _times() -> Iterator[VideoCase]:
    for codec in ("libx264", "libx265", "mpeg4", "libvpx-vp9", "mjpeg"):
        short, suffixes, _ = _KINDS[codec]
        for suffix in set(_TIMED) & set(suffixes.split()):
            late, variable = ([Fraction(tick, 1000) for tick in ticks] for ticks in (LATE, VARIABLE))
            yield VideoCase(f"{short} late.{suffix}", _clip(codec, times=LATE), times=late)
            yield VideoCase(f"{short} variable.{suffix}", _clip(codec, times=VARIABLE), times=variable)
    for suffix in ("ts", "flv"):
        yield VideoCase(f"late.{suffix}", _clip("libx264", times=LATE))
        yield VideoCase(f"variable.{suffix}", _clip("libx264", times=VARIABLE))
    yield VideoCase("variable b-frames.mp4", _clip("libx264", times=VARIABLE, bf="2"))
    yield VideoCase("variable b-frames.mkv", _clip("libx264", times=VARIABLE, bf="2"))
    for codec in ("libx264", "libx265", "mpeg4"):
        for suffix in ("mp4", "mov"):
            name = f"{_KINDS[codec][0]} edit list.{suffix}"
            yield VideoCase(name, _clip(codec, times=HIDDEN, bf="0"), COUNT - 5, RATE[: COUNT - 5])
    twice = [40 * (n - n // 9) for n in range(COUNT)]
    yield VideoCase("times twice.mkv", _clip("ffv1", times=twice), times=[Fraction(t, 1000) for t in twice])


def _shapes() -> Iterator[VideoCase]:
    for codec, suffix in (
        ("mpeg4", "mp4"), ("mjpeg", "avi"), ("mjpeg", "mov"), ("libvpx-vp9", "webm"), ("libvpx", "webm"),
        ("ffv1", "mkv"), ("png", "mov"), ("mpeg2video", "mpg"),
    ):  # fmt: skip
        times = RATE if suffix in _EXACT_TIMES else None
        yield VideoCase(f"{_KINDS[codec][0]} 65x49.{suffix}", _clip(codec, size=(65, 49)), times=times)
    yield VideoCase("h264 65x49.mp4", _clip("libx264", size=(65, 49), pix_fmt="yuv444p"), times=RATE)
    for size in ((1, 1), (2, 2), (2, 64), (64, 2), (16, 16), (640, 2)):
        yield VideoCase(f"{size[0]}x{size[1]}.mkv", _clip("ffv1", size=size, pix_fmt="yuv444p"), times=RATE)
    for suffix in ("mp4", "mov", "mkv"):
        yield VideoCase(f"4k.{suffix}", _clip("libx264", size=(3840, 2160), count=2), 2, RATE[:2])
        yield VideoCase(f"portrait.{suffix}", _clip("libx264", size=(72, 128)), times=RATE)
        for rotation in (0, 90, 180, 270):
            make = _clip("libx264", size=(128, 72), rotation=rotation)
            yield VideoCase(f"turned {rotation}.{suffix}", make, times=RATE, rotation=rotation)
    yield VideoCase("portrait 4k.mp4", _clip("libx264", size=(2160, 3840), count=2), 2, RATE[:2])
    yield VideoCase("wide pixels.mp4", _clip("libx264", aspect="4:1"), times=RATE)
    yield VideoCase("changes size.ts", _changes_size, codes=LOSSES)  # the numbering of its packets has a gap


def _odd_structures() -> Iterator[VideoCase]:
    """Yield clips with packets without frames, headers with too many frames, other tracks, and joined streams."""
    late = [1 + time for time in RATE]
    yield VideoCase("fields, a packet each.ts", partial(_fields, separate=True), times=late)
    yield VideoCase("fields, a packet each.mkv", partial(_fields, separate=True), times=late)
    yield VideoCase("fields, in pairs.mts", partial(_fields, separate=False), times=late)
    for suffix in ("mkv", "mp4"):
        yield VideoCase(f"fields of mpeg2, a packet each.{suffix}", _mpeg2_fields, times=late)
    for codec in ("libx264", "libx265", "mpeg2video"):
        for suffix in ("mkv", "ts"):
            yield VideoCase(f"{_KINDS[codec][0]} from an open gop.{suffix}", partial(_from_open_gop, codec=codec), None)
    for name, chunks, counted in (
        ("one more", _mpeg4, COUNT + 1), ("ten more", _mpeg4, COUNT + 10), ("empty at the end", _empty(COUNT), None),
        ("packed", lambda: oddities.packed(_images((96, 64))), None),
    ):  # fmt: skip
        yield VideoCase(f"{name}.avi", _avi(chunks, counted), times=RATE)
    yield VideoCase("one more, no index.avi", _avi(_mpeg4, COUNT + 1, index=False), times=RATE)
    for name, chunks in (("empty inside", _empty(10)), ("not coded inside", _empty(10, oddities.NOT_CODED))):
        yield VideoCase(f"{name}.avi", _avi(chunks), times=RATE[:10] + [time + Fraction(3, 25) for time in RATE[10:]])
    tape = [(data, key) for data, key, _ in oddities.packets("dvvideo", _images((720, 576), 6), "yuv420p")]
    for number in (1, 2):
        make = partial(_write_avi, chunks=lambda: tape, size=(720, 576), fourcc=b"dvsd", tape=number == 1)
        yield VideoCase(f"tape type {number}.avi", make, 6, RATE[:6])
    yield VideoCase("tape.dv", partial(Path.write_bytes, data=b"".join(data for data, _ in tape)), 6, RATE[:6])
    for suffix in ("mp4", "mov", "mkv"):
        for name, options in (("first", {}), ("last", {"last": True}), ("of two", {"pictures": 2})):
            yield VideoCase(f"poster {name}.{suffix}", partial(_with_poster, options=options), times=RATE)
    for suffix in ("ts", "mpg", "vob", "mkv"):
        yield VideoCase(f"joined.{suffix}", _joined(suffix), 2 * COUNT)
    for suffix in ("mp4", "flv", "wmv"):
        yield VideoCase(f"joined.{suffix}", _joined(suffix), COUNT, codes=("container_damaged",))


def _odd_pictures() -> Iterator[VideoCase]:
    """Yield clips with pixels that are not square, and HDR clips."""
    for suffix in ("mp4", "mov", "mkv"):
        for aspect in ("64:45", "8:9"):
            name = f"pixels {aspect.replace(':', ' to ')}.{suffix}"
            yield VideoCase(name, _clip("libx264", display=Fraction(aspect.replace(":", "/"))), times=RATE)
    yield VideoCase("pixels 64 to 45.mpg", _clip("mpeg2video", display=Fraction(64, 45)))
    for transfer in ("pq", "hlg"):
        for suffix in ("mov", "mkv"):
            make = partial(oddities.write_hdr, images=_images((96, 72), 6), transfer=transfer)
            yield VideoCase(f"{transfer}.{suffix}", make, 6, RATE[:6])


def _without_clock() -> Iterator[VideoCase]:
    """Yield elementary streams, whose frames have no times, and plain containers, whose frames have times."""
    for suffix, codec, form in (
        ("264", "libx264", "h264"), ("h265", "libx265", "hevc"), ("m2v", "mpeg2video", "mpeg2video"),
        ("m1v", "mpeg1video", "mpeg1video"), ("m4v", "mpeg4", "m4v"), ("mjpeg", "mjpeg", "mjpeg"),
        ("obu", "libsvtav1", "obu"),
    ):  # fmt: skip
        yield VideoCase(f"raw {codec}.{suffix}", _as_format(form, codec))
    yield VideoCase(
        "fields.h264", lambda path: path.write_bytes(b"".join(top + bottom for top, bottom in _field_pairs()))
    )
    yield VideoCase("plain.y4m", _as_format("yuv4mpegpipe", "wrapped_avframe"), times=RATE)
    yield VideoCase("plain.apng", _as_format("apng", "apng", "rgb24"), times=RATE)
    yield VideoCase("plain.ivf", _as_format("ivf", "libvpx"), times=RATE)


def _damaged() -> Iterator[VideoCase]:
    for codec, suffixes in (
        ("libx264", "mp4 mov mkv avi mpg ts flv"), ("libx265", "mp4 mkv ts"), ("mpeg4", "mp4 mkv avi"),
        ("libvpx-vp9", "webm mp4"), ("mjpeg", "avi mov mkv"), ("mpeg2video", "mpg ts"), ("wmv2", "wmv"),
    ):  # fmt: skip
        short = _KINDS[codec][0]
        for suffix in suffixes.split():
            rich = _rich(codec, suffix)
            for at in (0.4, 0.7):
                yield VideoCase(f"{short} hole at {at}.{suffix}", _then(rich, partial(hole, at=at)), None, codes=LOSSES)
            yield VideoCase(f"{short} truncated.{suffix}", _then(rich, truncate), None, codes=LOSSES)
    for suffix in ("mp4", "mkv"):
        yield VideoCase(f"noise.{suffix}", _then(_rich("libx264", suffix), damage), None, codes=LOSSES)
    late_index = _then(_rich("libx264", "mp4", index="last"), truncate)
    yield VideoCase("no index.mp4", late_index, codes=("not_a_video",))
    fragments = _rich("libx264", "mp4", index="fragments")
    yield VideoCase("fragments truncated.mp4", _then(fragments, truncate), None, codes=LOSSES)
    yield VideoCase(
        "only a start.mkv", _then(_rich("libx264", "mkv"), partial(truncate, part=0.02)), None, codes=_NOT_A_VIDEO
    )
    yield VideoCase(
        "only a start.avi", _then(_rich("mpeg4", "avi"), partial(truncate, part=0.02)), None, codes=_NOT_A_VIDEO
    )


_FORBIDDEN = () if os.geteuid() == 0 else ("permission_denied",)  # root has permission to read everything
_NOT_A_VIDEO = ("not_a_video", "no_video_stream", "no_frames", "decoder_failed")


def _misnamed() -> Iterator[VideoCase]:
    for suffix, other in (
        ("mkv", "mp4"), ("mp4", "avi"), ("avi", "mp4"), ("webm", "mov"), ("ts", "mkv"), ("mpg", "mp4"), ("flv", "ts"),
    ):  # fmt: skip
        codec = {"webm": "libvpx-vp9", "mpg": "mpeg2video"}.get(suffix, "libx264")
        times = RATE if suffix in _EXACT_TIMES else None
        yield VideoCase(f"in truth {suffix}.{other}", _as(suffix, _clip(codec, g="6")), times=times)
    yield VideoCase("in truth h264.mp4", _as("h264", _clip("libx264")))
    names = (
        "with spaces.mp4", "it's.mp4", 'a "quoted" name.mp4', "😀 emoji ü.mp4", "100%03d.mp4", "-x.mp4", "a::b.mp4",
        "concat:a|b.mp4", "subfile,,start,0,end,9,,:x.mp4", "a?b=c#d.mp4", "back\\slash.mp4", "new\nline.mp4",
        "$(x);`y`&.mp4", "[a-z]*.mp4", "e\u0301.mp4", "\u202eright to left.mp4", f"{'long' * 61}.mp4", "tab\t.mp4",
    )  # fmt: skip
    for count, name in enumerate(names, start=2):  # clips differ, because equal bytes are duplicates
        yield VideoCase(name, _clip("libx264", count=count), count, RATE[:count])


def _no_videos() -> Iterator[VideoCase]:
    yield VideoCase("sound only.mp4", partial(sound, codec="aac"), codes=("no_video_stream",))
    yield VideoCase("sound only.mkv", partial(sound, codec="pcm_s16le"), codes=("no_video_stream",))
    yield VideoCase("wav.mp4", _as("wav", partial(sound, codec="pcm_s16le")), codes=("not_a_video", "no_video_stream"))
    for suffix in ("mp4", "mkv", "avi"):
        yield VideoCase(f"no frames.{suffix}", _clip("mpeg4", count=0), codes=_NOT_A_VIDEO)
    noise = np.random.default_rng(0).bytes(5000)
    jpeg = cv2.imencode(".jpg", _images((96, 72))[0])[1].tobytes()
    png = cv2.imencode(".png", _images((96, 72))[0])[1].tobytes()
    for name, content in (
        ("text.mp4", b"I am no video.\n" * 50), ("page.mkv", b"<html><body>404 not found</body></html>"),
        ("empty.mp4", b""), ("one byte.avi", b"R"), ("zeros.mov", bytes(5000)), ("noise.webm", noise),
        ("picture.mp4", jpeg), ("picture.mov", png), ("archive.mp4", b"PK\x03\x04" + noise),
        ("head only.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"),
    ):  # fmt: skip
        yield VideoCase(name, partial(Path.write_bytes, data=content), codes=_NOT_A_VIDEO)
    yield VideoCase("pipe.mp4", os.mkfifo, codes=("not_a_video",))
    yield VideoCase("leads nowhere.mp4", lambda path: path.symlink_to("gone"), codes=("not_found",))
    yield VideoCase("unreadable.mp4", lambda path: path.symlink_to("/proc/self/mem"), codes=("unreadable",))
    yield VideoCase("forbidden.mp4", _then(_clip("libx264", g="5"), lambda path: path.chmod(0)), codes=_FORBIDDEN)


@cache
def _images(size: tuple[int, int], count: int = COUNT) -> list[np.ndarray]:
    width, height = size
    if min(size) >= 32:
        return scene(count, size=size, face=min(*size, 160) * 3 // 4 // 2 * 2, people=(0.5,), seed=width)
    return [np.full((height, width, 3), 40 + 5 * number % 200, np.uint8) for number in range(count)]


@cache
def _field_pairs() -> list[tuple[bytes, bytes]]:
    return oddities.field_pairs(_images((96, 64)))


def _mpeg2_fields(path: Path) -> None:
    fields = oddities.mpeg2_fields(_images((96, 64)))
    units = [(data, 50 + number, number % 2 == 0) for number, data in enumerate(fields)]
    oddities.mux(path, units, (96, 64), Fraction(1, 50), "mpeg2video")


def _from_open_gop(path: Path, codec: str) -> None:
    parameters = "keyint=6:min-keyint=6:open-gop=1:bframes=2:b-adapt=0:scenecut=0"
    options = {
        "mpeg2video": {"g": "6", "bf": "2", "b": "2M"},
        "libx264": {"x264-params": parameters},
        "libx265": {"x265-params": f"{parameters}:log-level=none:pools=none:frame-threads=1"},
    }[codec]
    images = _images((96, 64))
    whole = write_clip(path.with_stem("whole"), images, codec=codec, tick=Fraction(1, 25), options=options)
    from_key_frame(whole, path)
    whole.unlink()


def _fields(path: Path, separate: bool) -> None:
    units: list[tuple[bytes, int | None, bool]] = []
    for number, (top, bottom) in enumerate(_field_pairs()):
        pts, key = 50 + 2 * number, number % 12 == 0
        units += [(top, pts, key), (bottom, pts + 1, False)] if separate else [(top + bottom, pts, key)]
    oddities.mux(path, units, (96, 64), Fraction(1, 50))


def _mpeg4() -> list[tuple[bytes, bool]]:
    encoded = oddities.packets("mpeg4", _images((96, 64)), "yuv420p", {"g": "8"})
    return [(data, is_key) for data, is_key, _ in encoded]


def _empty(position: int, content: bytes = b"") -> Callable[[], list[tuple[bytes, bool]]]:
    """Return a function that makes chunks, three of which contain no frame."""

    def make() -> list[tuple[bytes, bool]]:
        chunks = _mpeg4()
        return [*chunks[:position], *([(content, False)] * 3), *chunks[position:]]

    return make


def _write_avi(path: Path, chunks: Callable[[], list[tuple[bytes, bool]]], **options: Any) -> None:
    oddities.write_avi(path, chunks(), **options)


def _avi(chunks: Callable[[], list[tuple[bytes, bool]]], counted: int | None = None, **options: Any) -> Any:
    return partial(_write_avi, chunks=chunks, size=(96, 64), fourcc=b"DX50", counted=counted, **options)


def _with_poster(path: Path, options: dict[str, Any]) -> None:
    plain = _clip("libx264")(path.with_name(f"{path.stem}.plain{path.suffix}"))
    oddities.with_poster(plain, path, **options)
    plain.unlink()


def _joined(suffix: str) -> Callable[[Path], None]:
    codec = {"mpg": "mpeg2video", "vob": "mpeg2video", "wmv": "wmv2"}.get(suffix, "libx264")

    def make(path: Path) -> None:
        once = _clip(codec)(path.with_name(f"{path.stem}.once.{suffix}"))
        path.write_bytes(once.read_bytes() * 2)
        once.unlink()

    return make


def _as_format(form: str, codec: str, pix_fmt: str | None = None) -> Callable[[Path], Path]:
    return lambda path: write_clip(
        path, _images((96, 72)), codec=codec, form=form, tick=Fraction(1, 25), pix_fmt=pix_fmt,
        options=_QUICK.get(codec, {}),
    )  # fmt: skip


def _clip(
    codec: str, *, size: tuple[int, int] = (96, 72), count: int = COUNT, times: list[int] | None = None,
    rotation: int | None = None, pix_fmt: str | None = None, muxer: dict[str, str] | None = None,
    display: Fraction | None = None, **options: str,
) -> Callable[[Path], Path]:  # fmt: skip
    def make(path: Path) -> Path:
        fixed = times is None and (path.suffix in (".avi", ".mpg", ".ts") or codec in ("mpeg2video", "mpeg1video"))
        return write_clip(
            path, _images(size, count) if count else [], codec=codec, times=times, rotation=rotation, muxer=muxer,
            tick=Fraction(1, 25 if fixed else 1000), pix_fmt=pix_fmt or _KINDS[codec][2], size=size,
            pixel_aspect=display,
            options={**_QUICK.get(codec, {}), **options},
        )  # fmt: skip

    return make


def _rich(codec: str, suffix: str, index: str = "first") -> Callable[[Path], Path]:
    """Return a maker of a clip with large frames, so that 2 KB of damage affect one or two frames."""
    flags = {"first": "faststart", "last": "", "fragments": "frag_keyframe+empty_moov"}[index]
    muxer = {"movflags": flags} if flags and suffix in ("mp4", "mov") else {}
    quality: dict[str, Any] = {"crf": "8"} if codec.startswith("lib") else {"qscale": "1", "b": "4M"}
    return _clip(codec, size=(160, 120), muxer=muxer, **quality)


def _then(make: Callable[[Path], Any], change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (make(path), change(path))


def _as(suffix: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def named(path: Path) -> None:
        made = path.with_name(f"{path.stem}.real.{suffix}")
        make(made)
        made.rename(path)

    return named


def _two_tracks(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=25, options=_QUICK["libx264"]) for _ in range(2)]
        sizes = ((96, 72), (64, 64))
        for stream, size in zip(streams, sizes, strict=True):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for stream, size in zip(streams, sizes, strict=True):
            for image in _images(size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode(None))


def _changes_size(path: Path) -> None:
    halves = [path.with_name(f"{path.stem}.{size}.ts") for size in (96, 160)]
    for half, size, first in zip(halves, ((96, 72), (160, 120)), (0, COUNT // 2), strict=True):
        _clip("libx264", size=size, count=COUNT // 2, times=RATE_TICKS[first:])(half)
    path.write_bytes(b"".join(half.read_bytes() for half in halves))
    for half in halves:
        half.unlink()


RATE_TICKS = [40 * n for n in range(COUNT)]
