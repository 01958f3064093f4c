import struct

import numpy as np
import pytest

from aupipe.errors import DatasetError
from aupipe.images.records import image_offsets, read
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

MAGIC = struct.pack("<I", 0xCED7230A)


def chunk(flag, data):
    return MAGIC + struct.pack("<I", flag << 29 | len(data)) + data + b"\0" * (-len(data) % 4)


def framed(data):
    """As dmlc-core's RecordIOWriter: data that holds the magic number at a multiple of 4 bytes is cut there."""
    parts, start = [], 0
    for place in range(0, len(data) - 3, 4):
        if data[place : place + 4] == MAGIC:
            parts.append(data[start:place])
            start = place + 4
    parts.append(data[start:])
    if len(parts) == 1:
        return chunk(0, data)
    return chunk(1, parts[0]) + b"".join(chunk(2, part) for part in parts[1:-1]) + chunk(3, parts[-1])


def packed(labels, image):
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], 0, 0) + image
    return struct.pack("<IfQQ", len(labels), 0.0, 0, 0) + np.array(labels, "<f4").tobytes() + image


IMAGES = [(7, b"\xff\xd8 one"), (7, b"four" + MAGIC + b"more" + MAGIC + b"tail"), (9, b"")]


@pytest.fixture
def folder(tmp_path):
    """Three images of two identities, their headers in both forms, and the records that InsightFace puts after them."""
    data, index = b"", []
    contents = [packed([4.0, 6.0], b"")]
    contents += [packed([who] if who == 9 else [who, 0.0], image) for who, image in IMAGES]
    contents += [packed([1.0, 3.0], b""), packed([3.0, 4.0], b"")]
    for number, content in enumerate(contents):
        index.append(f"{number}\t{len(data)}\n")
        data += framed(content)
    (tmp_path / "train.rec").write_bytes(data)
    (tmp_path / "train.idx").write_text("".join(reversed(index)))
    return tmp_path


def test_images_come_with_their_identity_and_number(folder):
    storage = Storage(folder)
    offsets = image_offsets(storage)
    assert len(offsets) == 3
    found = [(record.number, record.identity, record.image) for record in read(storage, offsets, 1)]
    assert found == [(number, who, image) for number, (who, image) in enumerate(IMAGES, start=1)]
    assert [record.number for record in read(storage, offsets[1:], 2)] == [2, 3]


def test_a_truncated_file_is_named(folder):
    storage = Storage(folder)
    offsets = image_offsets(storage)
    data = (folder / "train.rec").read_bytes()
    (folder / "train.rec").write_bytes(data[: offsets[2] + 20])
    one, two, three = read(storage, offsets, 1)
    assert (one.number, two.number) == (1, 2)
    assert "train.rec: truncated in a record" in str(three)
    (nowhere,) = read(storage, np.array([1]), 1)
    assert "no record at byte 1" in str(nowhere)


def test_an_invalid_index_is_named(folder):
    (folder / "train.idx").write_text("0\t0\n2\t40\n")
    with pytest.raises(DatasetError, match="not numbered 0 … 1"):
        image_offsets(Storage(folder))
    for text in ("", "0\tzero\n", f"0\t{10**20}\n"):
        (folder / "train.idx").write_text(text)
        with pytest.raises(DatasetError, match="not an index of lines"):
            image_offsets(Storage(folder))


def test_an_index_that_is_missing_or_truncated_is_named(folder):
    lines = sorted((folder / "train.idx").read_text().splitlines(keepends=True))
    for count in (5, 4):  # without records that are no images
        (folder / "train.idx").write_text("".join(lines[:count]))
        assert len(image_offsets(Storage(folder))) == 3
    (folder / "train.idx").write_text("".join(lines[:3]))
    with pytest.raises(DatasetError, match=r"train\.idx: 3 records \(4 by train\.rec\); it is truncated"):
        image_offsets(Storage(folder))
    (folder / "train.idx").unlink()
    with pytest.raises(DatasetError, match=r"train\.idx is missing; fix: "):
        image_offsets(Storage(folder))
