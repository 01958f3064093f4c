"""InsightFace's `train.rec` and `train.idx`, the format in which Glint360K and MS1M are published.

A record file (RecordIO of MXNet, dmlc-core) is a sequence of records, each: magic number (uint32), flag and length (3
and 29 bits of a uint32), data, padding to a multiple of 4 bytes. A record whose data contains the magic number is split
there into several (flags 1, 2, 3), without the number. Data is a header (uint32 flag, float32 label, uint64 id, uint64
id2; a flag n > 0 means that n float32 labels follow), then a JPEG. Record 0 contains no image; its labels are (number
of the first record after the images, …). The index has one line `number<TAB>offset` per record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from aupipe.errors import DatasetError
from aupipe.storage import Storage

REC, IDX = "train.rec", "train.idx"
_MAGIC = 0xCED7230A
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


@dataclass(frozen=True)
class Record:
    """One image of one identity."""

    number: int
    identity: int
    image: bytes


def image_offsets(storage: Storage) -> npt.NDArray[np.int64]:
    """Return the offsets (N,) in train.rec of the records 1 … N, which contain the images.

    Raises:
        DatasetError: the index is missing, or the index or the file is damaged.
    """
    if not storage.exists(IDX):
        raise DatasetError(f"{storage.path(IDX)} is missing; fix: download it too, beside {REC}")
    try:
        pairs = np.array(storage.read(IDX).split(), dtype=np.int64)
    except (ValueError, OverflowError):  # text, or a number beyond int64
        pairs = np.empty(0, np.int64)
    if not len(pairs) or len(pairs) % 2:
        raise DatasetError(f"{storage.path(IDX)}: not an index of lines `number offset`; download it again")
    numbers, offsets = pairs[0::2], pairs[1::2]
    by_number = offsets[np.argsort(numbers)]
    if not np.array_equal(np.sort(numbers), np.arange(len(numbers))):
        raise DatasetError(f"{storage.path(IDX)}: the records are not numbered 0 … {len(numbers) - 1}")
    with storage.open(REC) as file:
        file.seek(int(by_number[0]))
        labels, image = _unpack(_next(file, storage.path(REC)), storage.path(REC))
    if image:
        raise DatasetError(
            f"{storage.path(REC)}: record 0 contains an image instead of the counts; this is not an InsightFace set"
        )
    if len(numbers) < labels[0]:
        raise DatasetError(
            f"{storage.path(IDX)}: {len(numbers):,} records ({labels[0]:,.0f} by {REC}); it is truncated; "
            "download it again"
        )
    return by_number[1 : int(labels[0])]


def read(storage: Storage, offsets: npt.NDArray[np.int64], first: int) -> Iterator[Record | DatasetError]:
    """Yield the records at these offsets, numbered from `first`, or the error of a damaged record."""
    where = storage.path(REC)
    with storage.open(REC) as file:
        for number, offset in enumerate(offsets.tolist(), start=first):
            file.seek(offset)
            try:
                labels, image = _unpack(_next(file, where), where)
            except DatasetError as error:
                yield error
            else:
                yield Record(number, int(labels[0]), image)


def _next(file: BinaryIO, where: str) -> bytes:
    """Return the data of the record at the file's position."""
    parts = []
    while True:
        head = file.read(8)
        if len(head) < 8 or int.from_bytes(head[:4], "little") != _MAGIC:
            raise DatasetError(
                f"{where}: no record at byte {file.tell() - len(head)}; the file is damaged or truncated"
            )
        word = int.from_bytes(head[4:], "little")
        flag, length = word >> 29, word & (2**29 - 1)
        data = file.read(length)
        if len(data) < length:
            raise DatasetError(f"{where}: truncated in a record; download it again")
        file.seek(-length % 4, 1)
        parts.append(data)
        if flag in {_WHOLE, _LAST}:
            return _MAGIC.to_bytes(4, "little").join(parts)


def _unpack(data: bytes, where: str) -> tuple[npt.NDArray[np.float32], bytes]:
    """Return the labels and the image of a record."""
    if len(data) < _HEADER.size:
        raise DatasetError(f"{where}: a record of {len(data)} bytes has no header")
    count, label, _, _ = _HEADER.unpack_from(data)
    if not count:
        return np.array([label], np.float32), data[_HEADER.size :]
    end = _HEADER.size + 4 * count
    return np.frombuffer(data[_HEADER.size : end], "<f4"), data[end:]
