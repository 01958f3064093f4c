"""A face store of noise with random labels and audio, whose reading takes as long as that of faces."""

from __future__ import annotations

import cv2
import numpy as np

from aupipe import facs
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.facestore import jpeg, write
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.media.audio import AudioBlock
from aupipe.storage import Storage

RATE_HZ, _FRAMES_PER_S = 16_000, 30
_DETAIL = 20  # side of the noise in pixels; enlarged it makes a JPEG of about the size of a face's


def generate(storage: Storage, *, videos: int, frames: int, key: str) -> FaceStore:
    """Write a store with `videos` training videos and one for validation, and open it.

    Args:
        frames: of each video.
        key: identifies the content in the names of the shards.
    """
    rng = np.random.default_rng(0)
    names = []
    for split, count in (("train", videos), ("validation", 1)):
        part = write.ShardWriter()
        for video in range(count):
            name = f"{split}{video}"
            part.add(
                write.rows(
                    video_id=name, frames=np.arange(1, frames + 1), images=[_crop(rng) for _ in range(frames)],
                    au=rng.integers(0, 2, (frames, len(facs.AUS))), expression=rng.integers(0, 7, frames),
                    source="noise",
                )
            )  # fmt: skip
            samples = rng.integers(-3000, 3000, (1, frames * RATE_HZ // _FRAMES_PER_S), dtype=np.int16)
            storage.write(write.audio_name(name), write.audio_file(name, [AudioBlock(0.0, RATE_HZ, samples)]))
        names.append(write.shard_name(split, 0, key))
        storage.write(names[-1], part.finish())
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    write.finish(
        storage,
        StoreHeader(
            edition="noise", source="noise", license="", template=template, template_source="arcface",
            n_expressions=7, settings={},
        ),
        names,
    )  # fmt: skip
    return FaceStore.open(storage.root)


def _crop(rng: np.random.Generator) -> bytes:
    """Return the JPEG of a crop of noise."""
    noise = rng.integers(0, 256, (_DETAIL, _DETAIL, 3), dtype=np.uint8)
    return jpeg.encode(cv2.resize(noise, (CROP_SIZE_PX, CROP_SIZE_PX)))
