"""The errors that reading a damaged or hostile input can raise, in whatever library."""

from __future__ import annotations

import av
import cv2

from aupipe.errors import DecoderFailedError, MediaError, as_reason

INPUT_ERRORS = (MediaError, av.error.FFmpegError, cv2.error, MemoryError)


def as_media_error(error: BaseException) -> MediaError:
    """Return an error of `INPUT_ERRORS` as one with a reason."""
    return error if isinstance(error, MediaError) else DecoderFailedError(as_reason(error))
