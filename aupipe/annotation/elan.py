"""Events as a document of ELAN, the annotation tool of the Max Planck Institute for Psycholinguistics."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

_FORMAT = "3.0"  # of EAF; every ELAN from version 5 opens it
_SCHEMA = {  # as in ELAN's own documents; pympi reads no document without it
    "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation": (
        f"http://www.mpi.nl/tools/elan/EAFv{_FORMAT}.xsd"
    )
}
_DATE = "1970-01-01T00:00:00+00:00"  # The schema requires one. A fixed date keeps the bytes reproducible.

# The table of `mimetypes` gives .ts to translations of Qt, .mts to a format of models, .3gp to sound, and lacks others.
_MPEG_TS = dict.fromkeys((".ts", ".mts", ".m2ts", ".m2t", ".tp", ".trp", ".tod", ".mpegts"), "video/mp2t")
_MPEG = dict.fromkeys((".mpg", ".mpeg", ".mpe", ".mpv", ".m1v", ".m2v", ".m2p", ".vob", ".mod"), "video/mpeg")
_MEDIA_TYPES = _MPEG_TS | _MPEG | {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".qt": "video/quicktime",
    ".3gp": "video/3gpp", ".3gpp": "video/3gpp", ".3g2": "video/3gpp2", ".3gp2": "video/3gpp2",
    ".mkv": "video/x-matroska", ".webm": "video/webm", ".avi": "video/x-msvideo", ".flv": "video/x-flv",
    ".wmv": "video/x-ms-wmv", ".asf": "video/x-ms-asf", ".ogv": "video/ogg", ".ogm": "video/ogg",
    ".mxf": "application/mxf",
}  # fmt: skip

# The clock of these begins anywhere: at 1.4 s if FFmpeg writes them, and at any hour if they are recorded from TV.
_COUNTED_FROM_ZERO = {"video/mp2t", "video/mpeg"}


def origin_s(video_id: str, frames: np.ndarray, times_s: np.ndarray) -> float:
    """Return the media time that a player shows as 0: in MPEG's streams that of the first frame, otherwise 0.

    Args:
        frames: (N,) numbers of the rows' frames. If the first frame has no row, its time follows from the others.
        times_s: (N,) times of the same rows, NaN if unknown.
    """
    known = np.flatnonzero(~np.isnan(times_s))
    if _media_type(video_id) not in _COUNTED_FROM_ZERO or not len(known):
        return 0.0
    first, last = known[[0, -1]]
    step_s = max(0.0, times_s[last] - times_s[first]) / max(1, frames[last] - frames[first])
    return float(times_s[first] - frames[first] * step_s)


def document(video_id: str, times_s: np.ndarray, events: pa.Table, origin_s: float = 0.0) -> bytes:
    """Return the events of one video as EAF: one tier per face and AU, and the peak as the text of each annotation.

    An annotation ends with the last frame of the event, so it is one frame longer than `offset_s`, and an event of one
    frame has a length too. Events of frames without a time are left out.

    Args:
        video_id: the path of the media file relative to the document.
        times_s: (N,) times of the frames, NaN if unknown, for the duration of a frame.
        events: EVENTS of the video, ordered by face, AU and onset.
        origin_s: media time that the player shows as 0.
    """
    steps = np.diff(np.unique(times_s[~np.isnan(times_s)]))
    frame_ms = max(1, round(1000 * float(np.median(steps)))) if len(steps) else 1
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT", {"AUTHOR": "aupipe", "DATE": _DATE, "FORMAT": _FORMAT, "VERSION": _FORMAT, **_SCHEMA}
    )
    header = ElementTree.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    url = f"./{quote(video_id.rpartition('/')[2])}"
    ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", {
        "MEDIA_URL": url, "RELATIVE_MEDIA_URL": url, "MIME_TYPE": _media_type(video_id),
    })  # fmt: skip
    order = ElementTree.SubElement(root, "TIME_ORDER")
    tiers: dict[tuple[int, str], ElementTree.Element] = {}
    slots: list[tuple[int, str]] = []
    for number, event in enumerate(events.to_pylist(), 1):
        if event["onset_s"] is None or event["offset_s"] is None:
            continue
        # An EAF has no times before that which a player shows as 0.
        begin, end = (max(0, round(1000 * (event[name] - origin_s))) for name in ("onset_s", "offset_s"))
        slots += [(begin, f"ts{2 * number - 1}"), (max(end, begin) + frame_ms, f"ts{2 * number}")]
        key = event["face_id"], event["au"]
        if key not in tiers:
            tiers[key] = ElementTree.Element("TIER", {
                "TIER_ID": f"face {key[0]} {key[1]}", "PARTICIPANT": f"face {key[0]}", "LINGUISTIC_TYPE_REF": "au",
            })  # fmt: skip
        annotation = ElementTree.SubElement(ElementTree.SubElement(tiers[key], "ANNOTATION"), "ALIGNABLE_ANNOTATION", {
            "ANNOTATION_ID": f"a{number}", "TIME_SLOT_REF1": slots[-2][1], "TIME_SLOT_REF2": slots[-1][1],
        })  # fmt: skip
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = f"{event['peak']:.2f}"
    for time_ms, name in sorted(slots, key=lambda slot: slot[0]):
        ElementTree.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": name, "TIME_VALUE": str(time_ms)})
    root.extend(tiers.values())
    ElementTree.SubElement(root, "LINGUISTIC_TYPE", {
        "GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "au", "TIME_ALIGNABLE": "true",
    })  # fmt: skip
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _media_type(video_id: str) -> str:
    """Return the MIME type by the suffix; that of MP4 if it is unknown."""
    suffix = PurePosixPath(video_id).suffix.lower()
    if suffix in _MEDIA_TYPES:
        return _MEDIA_TYPES[suffix]
    guessed = mimetypes.guess_type(f"a{suffix}")[0] or ""
    return guessed if guessed.startswith(("video/", "image/")) else "video/mp4"
