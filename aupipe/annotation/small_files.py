"""Small files, which are probed by the task that annotates them, so that their bytes are read once and nothing waits.

Other files are probed before, because their segments are planned for all workers. Of a small file, only the size is
known, from which its number of frames is estimated. Files with the same bytes are annotated once. They have the same
size, so files of one size are probed by one task, which finds equal ones. A file whose size is that of a video with
committed tables is not a small file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Inputs
from aupipe.annotation.ledger import Committed
from aupipe.annotation.packets import Packet, plan_packets
from aupipe.annotation.pending import Pending
from aupipe.annotation.probed import estimates
from aupipe.annotation.video_rows import mask, one_piece, rows_of, take_rows
from aupipe.media.byte_source import HELD_BYTES
from aupipe.media.image_files import IMAGE_SUFFIXES

_FRAME_BYTES = 5_000  # of a frame, about: 1 Mbit/s at 25 frames per second
_IMAGES = f"(?i)({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})$"


def plan_small_files(
    inputs: Inputs, probed: pa.Array, committed: Committed, keys: CacheKeys, generation: int
) -> tuple[Sequence[Packet], pa.Table]:
    """Return packets of the small files, and the estimates of these files as a table of `probed.SCHEMA`.

    Args:
        inputs: that must be probed, with signatures, in the order of their video_id.
        probed: the video_id of those that were probed by an earlier run.
    """
    sizes, done = _sizes(inputs.table["signature"]), _sizes(committed.table["stat_signature"])
    # A file without a known size could have the bytes of any other one. A file on disk without one is not there.
    unknown = _are_remote_files(inputs.table["uri"]) & (sizes < 0)
    unknown_done = _are_remote_files(committed.table["uri"]) & (done < 0)
    is_small = (sizes >= 0) & (sizes <= HELD_BYTES) & ~np.isin(sizes, done)
    is_small &= (rows_of(committed.ids, inputs.ids) < 0) & (rows_of(probed, inputs.ids) < 0)
    if unknown.any() or unknown_done.any():
        is_small[:] = False
    is_small &= ~np.isin(sizes, sizes[~is_small])
    rows = np.flatnonzero(is_small)
    _, first, number = np.unique(sizes[rows], return_index=True, return_inverse=True)
    same_size = np.where(sizes[rows] > 0, first[number], np.arange(len(rows)))  # An empty file is no video.
    small = inputs.take(rows)
    is_image = mask(pc.match_substring_regex(small.table["uri"], _IMAGES))
    results = estimates(small.ids, np.where(is_image, 1, np.maximum(1, -(-sizes[rows] // _FRAME_BYTES))))
    packets, planned = plan_packets(Pending(small, results, keys), keys.config.packet_frames, generation, same_size)
    return packets, take_rows(results, planned)


def _are_remote_files(uris: pa.ChunkedArray) -> np.ndarray:
    """Return (n,) whether each is a file on a server. A folder of images has a fingerprint of its own kind."""
    return mask(pc.and_not(pc.match_substring(uris, "://"), pc.ends_with(uris, "/")))


def _sizes(signatures: pa.ChunkedArray) -> np.ndarray:
    """Return the size (n,) that each signature begins with, in bytes; -1 without one."""
    texts = one_piece(signatures).fill_null("")
    has_size = pc.match_substring_regex(texts, r"^\d+:")
    digits = pc.list_element(pc.split_pattern(pc.if_else(has_size, texts, "-1:"), ":", max_splits=1), 0)
    return digits.cast(pa.int64()).to_numpy()
