"""The tables of a video in the formats of other tools, in OUT/export/FORMAT/, named by the video_id.

csv        VIDEO_ID.csv           every column; landmarks as x_0, y_0 … x_4, y_4
openface   VIDEO_ID.csv           OpenFace 2's columns, except those of the eyes' outlines: frame (from 1), face_id,
                                  timestamp, confidence, success, AUxx_r, AUxx_c, and AU24, which it lacks; gaze,
                                  position, shape and AUs that aupipe does not measure are empty; pose_Rx, pose_Ry and
                                  pose_Rz are pitch, yaw and roll in radians, relative to the line of sight; AUxx_r is
                                  5 times the intensity above the face at rest
events     VIDEO_ID.csv           every column of the events table
elan       VIDEO_ID.eaf           the events as tiers of ELAN, one per face and AU
abaw       VIDEO.txt              the track file of the ABAW challenge, 0 or 1 per frame and AU, of the largest face of
                                  each frame; where frames have several, also VIDEO_left.txt and VIDEO_right.txt of the
                                  two largest; as `submit.py --annotation` chooses and fills them.
                                  VIDEO has no suffix: a job with b.mp4 and b.mkv, or b.mp4 and b_left.mp4, of one
                                  folder is refused
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from aupipe import facs
from aupipe.affwild2 import submission
from aupipe.affwild2.layout import split_person, track_name
from aupipe.annotation import elan
from aupipe.annotation.challenge import people_predictions
from aupipe.annotation.schema import INTENSITY, MEMBERS, POSE, PROB
from aupipe.errors import ConfigError
from aupipe.storage import Storage

# Frames and events of a video → its files by name, without the suffix of the form.
Form = Callable[[pa.Table, pa.Table], dict[str, bytes]]
_FOLDER = "export"
_SUFFIXES = {"csv": ".csv", "openface": ".csv", "events": ".csv", "elan": ".eaf", "abaw": ".txt"}  # of each form
_LONGEST_NAME = 255  # bytes

# OpenFace 2's columns between `success` and the AUs, without the outlines of the eyes. Readers such as py-feat's
# `read_openface` require them.
_OPENFACE_GEOMETRY = (
    *(f"gaze_{eye}_{axis}" for eye in range(2) for axis in "xyz"), "gaze_angle_x", "gaze_angle_y",
    *(f"pose_T{axis}" for axis in "xyz"), *(f"pose_R{axis}" for axis in "xyz"),
    *(f"{axis}_{point}" for axis in "xyXYZ" for point in range(68)),
    "p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty", *(f"p_{mode}" for mode in range(34)),
)  # fmt: skip
_OPENFACE_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
_OPENFACE_PRESENCES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)


def export(storage: Storage, forms: Iterable[str], frames: pa.Table, events: pa.Table) -> None:
    """Write the tables of one video in these formats.

    Args:
        frames: at least one row, ordered by frame and face.
        events: its events, ordered by face, AU and onset.
    """
    video_id = _video_id(frames)
    for form in forms:
        for name, data in FORMS[form](frames, events).items():
            storage.write(_path(form, video_id, name), data)


def delete_all(storage: Storage) -> int:
    """Delete the exports of all videos, and return the number of files. Files with other suffixes stay.

    Their folders, which have names of people perhaps, are deleted too.
    """
    names = [name for form, suffix in _SUFFIXES.items() for name in storage.names(f"{_FOLDER}/{form}", suffix)]
    storage.delete_many(names)
    for form in _SUFFIXES:
        storage.delete_empty_folders(f"{_FOLDER}/{form}")
    return len(names)


def exist(storage: Storage) -> bool:
    """Return whether there are exports of any video."""
    return any(storage.exists(f"{_FOLDER}/{form}") for form in FORMS)


def delete(storage: Storage, video_ids: Collection[str], forms: Iterable[str], kept: Iterable[str] = ()) -> int:
    """Delete the exports of some videos in these formats, and return the number of files.

    Args:
        kept: the video_id of each other video. A file that may be one of theirs stays.
    """
    count = 0
    for form in forms if video_ids else ():
        present = set(storage.names(f"{_FOLDER}/{form}", _SUFFIXES[form]))
        stale = present.intersection(path for video_id in video_ids for path in _paths(form, video_id))
        if stale and form == "abaw":  # All other names have the suffix of the video, so that they are unique.
            stale -= {path for video_id in kept for path in _paths(form, video_id)}
        if stale:
            storage.delete_many(sorted(stale))
            storage.delete_empty_folders(f"{_FOLDER}/{form}")
        count += len(stale)
    return count


def check_names(forms: Iterable[str], video_ids: Collection[str]) -> None:
    """Check that no file of one video has the name of a file of another.

    Raises:
        ConfigError: one has.
    """
    for form in forms:
        videos: dict[str, str] = {}
        for video_id in video_ids:
            path = PurePosixPath(video_id)  # a/b.mp4 and a//b.mp4 are one path
            name = str(path.parent / path.stem if form == "abaw" else path)
            if (other := videos.setdefault(name, video_id)) != video_id:
                raise _same_name(form, other, video_id)
        for name, video_id in videos.items() if form == "abaw" else ():
            video, person = split_person(name)
            if person and video in videos:  # It has this track if a frame of it has two faces.
                raise _same_name(form, videos[video], video_id)


def _same_name(form: str, one: str, other: str) -> ConfigError:
    return ConfigError(
        f"--export {form}: files of {one} and {other} would have the same name; "
        "fix: rename one of them, or annotate them into different folders (--out)"
    )


def _video_id(frames: pa.Table) -> PurePosixPath:
    return PurePosixPath(frames["video_id"][0].as_py())


def _path(form: str, video_id: PurePosixPath, name: str) -> str:
    """Return the path of a video's file that a form gives this name."""
    return f"{_FOLDER}/{form}/{'/'.join(map(_short, video_id.with_name(f'{name}{_SUFFIXES[form]}').parts))}"


def _paths(form: str, video_id: str) -> list[str]:
    """Return the paths of all files that a video may have in a form."""
    video = PurePosixPath(video_id)
    names = [track_name(video.stem, person) for person in ("", "left", "right")] if form == "abaw" else [video.name]
    return [_path(form, video, name) for name in names]


def _short(name: str) -> str:
    """Return a name that file systems accept. A video name of the maximum length leaves no room for another suffix."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    ends = f"~{hashlib.sha256(name.encode()).hexdigest()[:16]}{PurePosixPath(name).suffix[:8]}"
    return name.encode()[: _LONGEST_NAME - len(ends.encode())].decode(errors="ignore") + ends


def _csv(frames: pa.Table, _: pa.Table) -> bytes:
    return _bytes(_flat(frames))


def _flat(frames: pa.Table) -> pa.Table:
    """Return the table without list columns: one column per landmark coordinate, without the single models' values."""
    names = [name for name in frames.column_names if name not in {"landmarks", MEMBERS}]
    points = frames["landmarks"].combine_chunks()
    # `list_element` gives null for a null list; `flatten` would drop it.
    each = {
        f"{axis}_{point}": pc.list_element(points, 2 * point + place)
        for point in range(5) for place, axis in enumerate("xy")
    }  # fmt: skip
    return pa.table({**{name: frames[name] for name in names}, **each})


def _openface(frames: pa.Table, _: pa.Table) -> bytes:
    intensity = [frames[name].fill_null(0.0).to_numpy() for name in INTENSITY]
    decided = [frames[au].fill_null(False).to_numpy(zero_copy_only=False) for au in facs.AUS]
    times_s = np.asarray(frames["time_s"].to_numpy(zero_copy_only=False), np.float64)
    ours = {
        **{f"{au}_r": (5 * value).round(4) for au, value in zip(facs.AUS, intensity, strict=True)},
        **{f"{au}_c": d.astype(np.int8) for au, d in zip(facs.AUS, decided, strict=True)},
    }
    empty = pa.nulls(len(frames), pa.float32())
    columns = {
        "frame": frames["frame"].to_numpy() + 1,
        "face_id": frames["face_id"].fill_null(0),
        "timestamp": pa.array(times_s.round(6), mask=np.isnan(times_s)),  # empty where a frame has no time
        "confidence": frames["detector_score"].fill_null(0.0),
        "success": frames[PROB[0]].is_valid().cast(pa.int8()),
        **dict.fromkeys(_OPENFACE_GEOMETRY, empty),
        **_openface_pose(frames),
        **{name: ours.get(name, empty) for name in _openface_aus()},
    }
    return _bytes(pa.table(columns))


def _openface_pose(frames: pa.Table) -> dict[str, pa.Array]:
    radians = [np.radians(frames[name].to_numpy(zero_copy_only=False)).round(4) for name in POSE]
    return {f"pose_R{axis}": pa.array(each, from_pandas=True) for axis, each in zip("yxz", radians, strict=True)}


def _openface_aus() -> list[str]:
    """Return the names of OpenFace's AU columns and ours: intensities, then presences, each in order of the AU."""
    return [
        f"AU{number:02d}_{kind}"
        for kind, theirs in (("r", _OPENFACE_INTENSITIES), ("c", _OPENFACE_PRESENCES))
        for number in sorted({*theirs, *facs.AU_NUMBERS})
    ]


def _abaw(frames: pa.Table, _: pa.Table) -> dict[str, bytes]:
    video = _video_id(frames).stem
    count = int(frames["frame"].to_numpy().max()) + 1
    faces = frames.filter(frames[facs.AUS[0]].is_valid())["frame"].to_numpy()
    people = [("",), ("left", "right")] if len(faces) > len(np.unique(faces)) else [("",)]
    tracks = {
        track_name(video, person): decisions
        for together in people for person, decisions in people_predictions(frames, together).items()
    }  # fmt: skip
    filled = submission.fill_tracks(tracks, dict.fromkeys(tracks, count))
    return {track: submission.write_track(each >= 0.5).encode() for track, each in filled.items()}


def _bytes(table: pa.Table) -> bytes:
    """Return a table as CSV. Its header has no quotes, as OpenFace's, because scripts split it at the commas."""
    sink = io.BytesIO(f"{','.join(table.column_names)}\n".encode())
    sink.seek(0, io.SEEK_END)
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue()


def _events(_: pa.Table, events: pa.Table) -> bytes:
    return _bytes(events)


def _elan(frames: pa.Table, events: pa.Table) -> bytes:
    times_s = np.asarray(frames["time_s"].to_numpy(zero_copy_only=False), np.float64)
    video_id = frames["video_id"][0].as_py()
    origin_s = elan.origin_s(video_id, frames["frame"].to_numpy(), times_s)
    return elan.document(video_id, times_s, events, origin_s)


def _file(make: Callable[[pa.Table, pa.Table], bytes]) -> Form:
    """Return a format with one file, which has the name of the video."""
    return lambda frames, events: {_video_id(frames).name: make(frames, events)}


FORMS: dict[str, Form] = {
    "csv": _file(_csv),
    "openface": _file(_openface),
    "events": _file(_events),
    "elan": _file(_elan),
    "abaw": _abaw,
}
