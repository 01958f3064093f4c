"""Signatures of files: while the signature of a file is unchanged, its fingerprint is not computed again."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.annotation.inputs import Inputs, signature_in
from aupipe.annotation.settings import content_hash
from aupipe.errors import ConfigError, MediaError, redact
from aupipe.media.image_files import is_sequence, sequence_files
from aupipe.storage import filesystem_of, is_uri

_REQUESTS_AT_A_TIME = 32
_FILES_TOGETHER = 65_536  # files whose signatures are Python objects


def with_signatures(inputs: Inputs) -> Inputs:
    """Return the inputs with the signature of each; "" for a file without one.

    Inputs from a listing have theirs. Requests for other remote files, as those of a manifest, run in threads.
    """
    found: list[pa.Array] = []
    with ThreadPoolExecutor(_REQUESTS_AT_A_TIME) as pool:
        for first in range(0, len(inputs), _FILES_TOGETHER):
            files = inputs.table.slice(first, _FILES_TOGETHER)
            uris, signatures = files["uri"].to_pylist(), files["signature"].to_pylist()
            missing = [number for number, signature in enumerate(signatures) if signature is None]
            remote = [number for number in missing if is_uri(uris[number])]
            requested = pool.map(stat_signature, [uris[number] for number in remote])
            for number, signature in zip(remote, requested, strict=True):
                signatures[number] = signature
            for number in missing:
                if signatures[number] is None:
                    signatures[number] = stat_signature(uris[number])
            found.append(pa.array(signatures, pa.string()))
    return inputs.with_column("signature", pa.chunked_array(found, pa.string()))


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
