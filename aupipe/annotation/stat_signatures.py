"""Signatures of files: while the signature of a file is unchanged, its fingerprint is not computed again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.annotation.inputs import Input, signature_in
from aupipe.annotation.settings import content_hash
from aupipe.errors import ConfigError, MediaError, redact
from aupipe.media.image_files import is_sequence, sequence_files
from aupipe.storage import filesystem_of, is_uri

_REQUESTS_AT_A_TIME = 32


def stat_signatures(inputs: Iterable[Input]) -> dict[str, str]:
    """Return the signature of each input, by video_id.

    Inputs from a listing have theirs. Requests for other remote files, as those of a manifest, run in threads.
    """
    found: dict[str, str] = {}
    remote: list[Input] = []
    for video in inputs:
        if video.signature is not None:
            found[video.video_id] = video.signature
        elif is_uri(video.uri):
            remote.append(video)
        else:
            found[video.video_id] = stat_signature(video.uri)
    if remote:
        with ThreadPoolExecutor(min(_REQUESTS_AT_A_TIME, len(remote))) as pool:
            requested = pool.map(stat_signature, [video.uri for video in remote])
            found |= zip([video.video_id for video in remote], requested, strict=True)
    return found


def stat_signature(uri: str) -> str:
    """Return the size and modification time of a file, or its ETag; "" if neither is available."""
    if is_sequence(uri):
        try:
            each = [(file, stat_signature(file)) for file in sequence_files(uri)]
        except MediaError:  # it is probed, and the reason is recorded there
            return ""
        return content_hash(each) if all(signature for _, signature in each) else ""
    try:
        if not is_uri(uri):
            status = os.stat(uri)
            return f"{status.st_size}:{status.st_mtime_ns}"
        filesystem, path = filesystem_of(uri)
        return signature_in(filesystem.info(path))
    except (OSError, UnicodeEncodeError, ConfigError):  # The probe reports the reason.
        return ""
    except BotoCoreError as error:
        raise ConfigError(redact(f"{uri}: {error}")) from None
