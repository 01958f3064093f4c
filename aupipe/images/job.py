"""Preprocessing of labeled images and identity sets without the cluster: plan, files to make, and the card."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe import facs
from aupipe.config import Resources, Section
from aupipe.errors import DatasetError, ManifestError
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.facestore.job import FileTask, measured_template
from aupipe.facestore.schema import FILE_ROWS, StoreCard, StoreHeader
from aupipe.facestore.write import finish, shard_name
from aupipe.images.manifest import read_folders, read_manifest
from aupipe.images.pack import pack_records, pack_table
from aupipe.images.records import IDX, REC, image_offsets
from aupipe.manifests import SUFFIXES
from aupipe.storage import Storage, folder_and_name, local_path

Kind = Literal["manifest", "folders", "records"]


class ImagesDataConfig(Section):
    """Properties of the images that no file contains."""

    license: str = "not stated"  # license of the images, kept in store.json


class ImagesConfig(Section):
    """All settings of preprocess.py for images."""

    data: ImagesDataConfig = ImagesDataConfig()
    detector: DetectorConfig = DetectorConfig()
    resources: Resources = Resources()  # as in every job; preprocessing uses no GPU


@dataclass(frozen=True)
class ImagesJob:
    """A planned run over the images of a table, or of a train.rec."""

    out: str
    root: str  # folder of the images
    kind: Kind
    images: pa.Table | npt.NDArray[np.int64]  # manifest.TABLE, or the records' offsets
    stamp: str  # hash of the manifest, index or file names
    config: ImagesConfig

    @property
    def origin(self) -> str:
        """Source of the store, for its card."""
        return f"images:{self.kind}"

    def files(self) -> list[FileTask]:
        """Return all files of the store except the card."""
        root, detector, source = self.root, self.config.detector, self.origin
        key = (self.origin, self.stamp, self.config.detector.model_dump_json())
        tasks = []
        for split, first, count in self._slices():
            make: Callable[[], bytes]
            if isinstance(self.images, pa.Table):
                rows = self.images.take(
                    np.arange(first, first + count)
                )  # a slice would be pickled with the whole table
                make = functools.partial(pack_table, rows, root=root, detector=detector, source=source)
            else:
                offsets = self.images[first : first + count].copy()
                make = functools.partial(
                    pack_records, offsets, first=first + 1, root=root, detector=detector, source=source
                )
            name = shard_name(split, first // FILE_ROWS, *key, str(first), str(count))
            tasks.append(FileTask(name, count, make))
        return tasks

    def complete(self) -> StoreCard:
        """Write the card. Call it when all parts are written."""
        parts = [file.name for file in self.files()]
        template = measured_template(self.out, parts, Detector(self.config.detector))
        expressions = self.images["expression"].to_numpy() if isinstance(self.images, pa.Table) else np.array([-1])
        header = StoreHeader(
            edition="images",
            source=self.origin,
            license=self.config.data.license,
            template=template.as_tuples(),
            template_source=template.source,
            n_expressions=len(facs.EXPRESSIONS) if expressions.max() >= 0 else 0,
            settings={"min_score": self.config.detector.min_score},
        )
        return finish(Storage(self.out), header, parts)

    def text(self) -> str:
        """Return the plan, except for the files, as text."""
        return f"{self.root}: {len(self.images):,} images, source: {self.origin}"

    def _slices(self) -> list[tuple[str, int, int]]:
        """Return (split, first row, number of rows) per part."""
        if not isinstance(self.images, pa.Table):
            splits = {"train": (0, len(self.images))}
        else:
            names, starts, counts = np.unique(
                self.images["split"].to_numpy(zero_copy_only=False).astype(str), return_index=True, return_counts=True
            )
            found = zip(names.tolist(), starts.tolist(), counts.tolist(), strict=True)
            splits = {name: (start, start + count) for name, start, count in found}
        return [
            (split, first, min(FILE_ROWS, stop - first))
            for split, (start, stop) in splits.items()
            for first in range(start, stop, FILE_ROWS)
        ]


def is_images(data: str, source: str | None) -> bool:
    """Return whether `data` is a manifest or contains a train.rec, or `source` is images."""
    return source == "images" or data.lower().endswith(SUFFIXES) or Storage(data).exists(REC)


def prepare(data: str, out: str, config: ImagesConfig) -> ImagesJob:
    """Read the manifest, the folders' names or the index, and plan the parts.

    Raises:
        ManifestError: the manifest is invalid.
        DatasetError: there are no images, or the record file is damaged.
    """
    if data.lower().endswith(SUFFIXES):
        storage, name = folder_and_name(local_path(data))
        if not storage.exists(name):
            raise ManifestError(f"--data {data}: no such file")
        stamp = hashlib.sha256(storage.read(name)).hexdigest()
        return ImagesJob(out, storage.root, "manifest", read_manifest(storage, name), stamp, config)
    storage = Storage(data)
    if not storage.exists():
        raise DatasetError(f"--data {data}: no such folder")
    if storage.exists(REC):
        stamp = hashlib.sha256(storage.read(IDX)).hexdigest()
        return ImagesJob(out, storage.root, "records", image_offsets(storage), stamp, config)
    table = read_folders(storage)
    stamp = hashlib.sha256("\n".join(table["path"].to_pylist()).encode()).hexdigest()
    return ImagesJob(out, storage.root, "folders", table, stamp, config)
