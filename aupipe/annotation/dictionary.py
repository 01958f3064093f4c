"""The columns and reasons of all tables in words, from which the tables of README.md in this folder are made.

After a change of the schema, `python -m aupipe.annotation.dictionary` writes them again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from aupipe import facs
from aupipe.annotation.schema import EVENTS, MEMBERS, REASONS, VIDEOS, frames_schema

PAGE = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- tables: made by `python -m aupipe.annotation.dictionary` -->\n", "<!-- end of tables -->\n"

_FRAMES = {
    "video_id": "path of the input below the named folder, or its name",
    "frame": "number in order of presentation, from 0",
    "time_s": "presentation time in seconds, not shifted to 0; null if the container gives none",
    "face_id": "number of a tracked face, in order of appearance; null without a face; see below",
    "status": "`ok`, `no_face`, `face_too_small` or `decode_error`",
    "detector_score": "0 to 1",
    "box_x": "left edge of the face in pixels of the upright frame",
    "box_y": "upper edge",
    "box_w": "width",
    "box_h": "height",
    "landmarks": "x, y of left eye, right eye, nose tip, left and right mouth corner, as seen",
    "frame_width": "of the frame that box and landmarks refer to; null if it was not decoded",
    "frame_height": "as `frame_width`",
    "pose_yaw": "degrees; positive turns the nose to the left of the picture",
    "pose_pitch": "degrees; positive turns the nose down; coarse, see below",
    "pose_roll": "degrees; positive turns the head clockwise in the picture",
    "sharpness": "variance of the Laplacian in the face; compare within one source only",
    "AUxx_raw": "probability of the model, of several models the mean",
    "AUxx_prob": "smoothed probability",
    "AUxx_intensity": "0 to 1: `AUxx_prob` above this face at rest, see below",
    "AUxx": "the decision: `AUxx_prob` reaches the threshold in run.json",
    MEMBERS: "of several models only: `AUxx_raw` of each model, in the order of run.json",
    "EXPR": "of models with expressions only: the most likely one",
    "EXPR_xx_prob": "of models with expressions only: the probability of each",
}
_EVENTS = {
    "video_id": "as in frames", "face_id": "as in frames", "au": "name of the AU",
    "onset_s": "time of the first frame of the event", "apex_s": "time of its highest `AUxx_prob`",
    "offset_s": "time of its last frame", "peak": "highest `AUxx_prob`", "mean": "mean `AUxx_prob`",
    "onset_frame": "number of the first frame", "apex_frame": "number of the apex", "offset_frame": "of the last frame",
}  # fmt: skip
_VIDEOS = {
    "uri": "the input, without secrets", "video_id": "as in frames", "fingerprint": "SHA-256 of the bytes",
    "status": "`ok`, `partial`, `quarantined` or `duplicate`", "reason": "a code, a colon and a message",
    "frames_expected": "frames to be presented, without those that need earlier frames than the file has",
    "frames_decoded": "of them",
    "frames_lost": "of them, with the status `decode_error`",
    "frames_corrupt": "decoded with a warning that a part may be wrong", "faces": "number of values of `face_id`",
    "duration_s": "seconds", "rotation": "degrees by which frames were turned upright",
    "variable_frame_rate": "steps between frames differ", "work_s": "seconds of work, about",
    "attempts": "highest number of attempts at a segment", "duplicate_of": "the input with the same bytes",
    "model_sha256": "of the models that predicted the rows", "frame_width": "of the first frame",
    "frame_height": "of the first frame", "pixel_aspect": "of a stored pixel; frames are resized to square pixels",
    "hdr": "`pq` or `hlg` if frames were tone-mapped", "track": "number of the video track, from 0",
    "tracks": "number of video tracks", "clock_restarts": "number, as in joined streams",
    "remark": "an anomaly of the file that loses no frame",
}  # fmt: skip


def tables() -> str:
    """Return the tables as Markdown.

    Raises:
        KeyError: a column has no words here.
    """
    frames = frames_schema(models=2, classes=len(facs.EXPRESSIONS))
    parts = [_columns("frames/*.parquet", frames, _FRAMES), _columns("events/*.parquet", EVENTS, _EVENTS)]
    parts.append(_columns("videos.parquet", VIDEOS, _VIDEOS))
    reasons = "\n".join(f"| `{code}` | {words} |" for code, words in REASONS.items())
    return "\n\n".join([*parts, f"### Reasons\n\n| code | meaning |\n|---|---|\n{reasons}"]) + "\n"


def page(text: str) -> str:
    """Return the text of README.md with the tables between its two marks."""
    head, rest = text.split(_BEGIN)
    return f"{head}{_BEGIN}\n{tables()}\n{_END}{rest.split(_END)[1]}"


def _columns(name: str, schema: pa.Schema, words: dict[str, str]) -> str:
    kinds = {_family(field.name): re.sub(r".*list<\w+: (\w+)>.*", r"list of \1", str(field.type)) for field in schema}
    rows = "\n".join(f"| `{column}` | {kind} | {words[column]} |" for column, kind in kinds.items())
    return f"### {name}\n\n| column | type | meaning |\n|---|---|---|\n{rows}"


def _family(column: str) -> str:
    """Return the name of a column with `xx` for the AU or the expression."""
    return re.sub(r"^EXPR_\w+_prob$", "EXPR_xx_prob", re.sub(r"^AU\d\d", "AUxx", column))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
