"""One tree of errors. A message says what is wrong, where, and what to do; `exit_code` is what a job ends with."""

from __future__ import annotations

import re


def redact(text: str) -> str:
    """`text` without the secrets that a URI may hold: user and password, and what follows the question mark."""
    text = re.sub(r"(?<=://)[^/\s]+@", "", text)
    return re.sub(r"(https?://[^\s?]*)\?\S+?(?=[:,;.)'\"]*(\s|$))", r"\1?…", text)


class AupipeError(Exception):
    """Something that aupipe can name. The job ends with `exit_code` and the message, one sentence without secrets."""

    exit_code = 1

    def __str__(self) -> str:
        return redact(super().__str__())


class ConfigError(AupipeError):
    """The command line or configuration is wrong; nothing was started."""

    exit_code = 2


class EnvironmentFailure(AupipeError):
    """A disk, network, storage service or Ray failed while work was under way; the same command resumes."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be used: files missing, another AU order, shapes that do not fit."""


class DatasetError(ConfigError):
    """A data set or store is not laid out as it must be, or holds nothing to work on."""


class ManifestError(ConfigError):
    """A manifest lacks a column or holds a value that cannot be meant."""


class MediaError(AupipeError):
    """One input cannot be read as video. `reason` is the code that stands in videos.parquet."""

    reason = "unreadable"


class NotFoundError(MediaError):
    reason = "not_found"


class PermissionDeniedError(MediaError):
    reason = "permission_denied"


class NotAVideoError(MediaError):
    reason = "not_a_video"


class NoVideoStreamError(MediaError):
    reason = "no_video_stream"


class NoFramesError(MediaError):
    reason = "no_frames"


class NoClockError(MediaError):
    reason = "no_clock"


class DecoderMissingError(MediaError):
    reason = "codec_not_supported"


class WorkerDiedError(MediaError):
    reason = "worker_died"


class TimedOutError(MediaError):
    reason = "timed_out"


class SoundLostError(MediaError):
    reason = "sound_lost"


class TooLargeError(MediaError):
    reason = "too_large"


def one_line(message: object) -> str:
    """Return a message as one line, without secrets."""
    return redact(" ".join(str(message).split()))


def as_reason(message: object) -> str:
    """A message as part of a reason: one line, without the "; " that stands between reasons."""
    return " ".join(str(message).split()).replace("; ", ", ")
