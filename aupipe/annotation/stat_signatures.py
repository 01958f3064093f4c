"""Signatures of files: while the signature of a file is unchanged, its fingerprint is not computed again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.inputs import Inputs
from aupipe.annotation.settings import content_hash
from aupipe.annotation.video_rows import one_piece
from aupipe.errors import MediaError
from aupipe.media.image_files import is_sequence, sequence_files
from aupipe.storage import REQUESTS_AT_A_TIME, file_signature, signature_on_disk

_FILES_TOGETHER = 65_536  # files whose signatures are Python objects


def with_signatures(inputs: Inputs) -> Inputs:
    """Return the inputs with the signature of each; "" for a file without one.

    Inputs from a listing have theirs. Requests for other remote files, as those of a manifest, run in threads.
    """
    found: list[pa.Array] = []
    with ThreadPoolExecutor(REQUESTS_AT_A_TIME) as pool:
        others = partial(pool.map, stat_signature)
        for first in range(0, len(inputs), _FILES_TOGETHER):
            files = inputs.table.slice(first, _FILES_TOGETHER)
            uris, signatures = one_piece(files["uri"]), one_piece(files["signature"])
            is_missing = signatures.is_null()
            is_local = pc.invert(pc.or_(pc.match_substring(uris, "://"), pc.ends_with(uris, "/")))
            for is_chosen, sign in ((is_local, partial(map, signature_on_disk)), (pc.invert(is_local), others)):
                chosen = pc.and_(is_chosen, is_missing)
                signed = pa.array(sign(uris.filter(chosen).to_pylist()), pa.string())
                signatures = pc.replace_with_mask(signatures, chosen, signed)
            found.append(signatures)
    return inputs.with_column("signature", pa.chunked_array(found, pa.string()))


def stat_signature(uri: str) -> str:
    """Return the size and modification time of a file, or its ETag; "" if neither is available."""
    if is_sequence(uri):
        try:
            each = [(file, stat_signature(file)) for file in sequence_files(uri)]
        except MediaError:  # it is probed, and the reason is recorded there
            return ""
        return content_hash(each) if all(signature for _, signature in each) else ""
    return file_signature(uri)
