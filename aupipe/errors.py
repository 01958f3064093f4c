"""The exceptions of aupipe. A message names the problem, its place and the fix; `exit_code` is that of the job."""

from __future__ import annotations

import re


def redact(text: str) -> str:
    """Return `text` without the secrets that a URI may contain: user and password, and the query string."""
    text = re.sub(r"(?<=://)[^/\s]+@", "", text)
    return re.sub(r"(https?://[^\s?]*)\?\S+?(?=[:,;.)'\"]*(\s|$))", r"\1?…", text)


# Control characters, separators of lines, and those that reverse the direction of text.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return a line for a terminal or a log: characters that would move the cursor, or hide text, become \x1b etc.

    A name of a file may contain any of them. Tables and other files keep names unchanged.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class AupipeError(Exception):
    """A failure with a known cause. The job ends with `exit_code` and the message, one sentence without secrets."""

    exit_code = 1

    def __str__(self) -> str:
        return redact(super().__str__())


class ConfigError(AupipeError):
    """An invalid command line or configuration; nothing was started."""

    exit_code = 2


class UncreatableFolderError(ConfigError, FileNotFoundError):
    """A folder that cannot be created. It is an OSError as well, which a run treats as a failure of its storage."""


class EnvironmentFailure(AupipeError):
    """A failure of a disk, network, storage service or Ray during the job. Re-run the same command to resume."""


class CheckpointError(ConfigError):
    """An unusable checkpoint: missing files, another AU order, or shapes that do not match."""


class DatasetError(ConfigError):
    """A data set or store with an invalid layout, or without usable content."""


class ManifestError(ConfigError):
    """A manifest without a required column, or with an invalid value."""


class MediaError(AupipeError):
    """An input that cannot be read as video. `reason` is its code in videos.parquet."""

    reason = "unreadable"


class NotFoundError(MediaError):
    reason = "not_found"


class ChangedError(MediaError):
    """The file was overwritten while it was read, so its parts would be of two videos."""

    reason = "changed"


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


class DecoderFailedError(MediaError):
    reason = "decoder_failed"


class WorkerDiedError(MediaError):
    reason = "worker_died"


class TimedOutError(MediaError):
    reason = "timed_out"


class AudioLostError(MediaError):
    reason = "sound_lost"


class TooLargeError(MediaError):
    reason = "too_large"


def one_line(message: object) -> str:
    """Return a message as one line for a terminal, without secrets."""
    return printable(redact(" ".join(str(message).split())))


def as_reason(message: object) -> str:
    """Return a message as part of a reason: one line, without the separator "; " between reasons."""
    return " ".join(str(message).split()).replace("; ", ", ")
