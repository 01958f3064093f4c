"""Preprocessing of labeled images and identity sets without the cluster: plan, files to make, and the card."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from aupipe import facs
from aupipe.config import Resources, Section
from aupipe.errors import DatasetError, ManifestError
from aupipe.faces import detect
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.facestore.columns import labels
from aupipe.facestore.job import FileTask, measured_template
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import FILE_ROWS, StoreCard, StoreHeader
from aupipe.facestore.write import finish, shard_name
from aupipe.images import datasets, pack
from aupipe.images.datasets import Dataset
from aupipe.images.manifest import read_folders, read_manifest
from aupipe.images.pack import full_path, pack_records, pack_table
from aupipe.images.records import IDX, REC, image_offsets
from aupipe.manifests import SUFFIXES
from aupipe.storage import (
    REQUESTS_AT_A_TIME,
    Storage,
    file_signature,
    folder_and_name,
    is_http,
    is_uri,
    local_path,
    signature_on_disk,
)

Kind = Literal["manifest", "folders", "records"] | datasets.Name
_STORE = "store:"


class ImagesDataConfig(Section):
    """Properties of the images that no file contains."""

    license: str = "not stated"  # license of the images, kept in store.json
    # Five points that images are aligned to: arcface, or store:PATH for those of another store, e.g. one of third-party
    # crops with which these images are trained. Images of 112×112 are kept as they are.
    template: str = Field(default="arcface", pattern=r"arcface|store:.+")


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
    dataset: Dataset | None = None  # None: images without a data set of their own
    template: tuple[tuple[float, float], ...] = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)  # to align to
    # Of the image of each row, "" without a file; of the train.rec alone for records.
    signatures: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Source of the store, for its card."""
        return f"images:{self.kind}"

    def files(self) -> list[FileTask]:
        """Return all files of the store except the card."""
        root, detector, source = self.root, self.config.detector, self.origin
        methods = f"{detect.METHOD} {pack.METHOD}"
        key: tuple[str, ...] = (self.origin, self.stamp, methods, self.config.detector.model_dump_json())
        points = np.array(self.template, np.float32)
        if not np.array_equal(points, ARCFACE_TEMPLATE):
            key = (*key, repr(self.template))
        tasks = []
        for split, first, count in self._slices():
            make: Callable[[], bytes]
            if isinstance(self.images, pa.Table):
                rows = self.images.take(
                    np.arange(first, first + count)
                )  # a slice would be pickled with the whole table
                make = functools.partial(pack_table, rows, root=root, detector=detector, template=points, source=source)
                signatures = self.signatures[first : first + count]
            else:
                offsets = self.images[first : first + count].copy()
                signatures = self.signatures
                make = functools.partial(
                    pack_records, offsets, first=first + 1, root=root, detector=detector, template=points, source=source
                )
            name = shard_name(split, first // FILE_ROWS, *key, str(first), str(count), *signatures)
            tasks.append(FileTask(name, count, make))
        return tasks

    def complete(self) -> StoreCard:
        """Write the card. Call it when all parts are written."""
        parts = [file.name for file in self.files()]
        template = measured_template(self.out, parts, Detector(self.config.detector))
        expressions = self.images["expression"].to_numpy() if isinstance(self.images, pa.Table) else np.array([-1])
        found = self.dataset
        names = facs.EXPRESSIONS if found is None else found.expressions
        stated = self.config.data.license
        if found is not None and "license" not in self.config.data.model_fields_set:
            stated = found.license
        header = StoreHeader(
            edition="images" if found is None else found.name,
            source=self.origin,
            license=stated,
            template=template.as_tuples(),
            template_source=template.source,
            n_expressions=len(names) if expressions.max() >= 0 else 0,
            expressions=names,
            settings={"min_score": self.config.detector.min_score},
        )
        return finish(Storage(self.out), header, parts)

    def text(self) -> str:
        """Return the plan, except for the files, as text."""
        text = f"{self.root}: {len(self.images):,} images, source: {self.origin}"
        if self.dataset is None:
            return text
        left_out = "".join(f"; left out: {count:,} with {reason}" for reason, count in self.dataset.left_out.items())
        return f"{text}, edition {self.dataset.title}{left_out}"

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
    """Return whether `data` is a manifest, contains a train.rec or a known data set, or `source` is images."""
    if source == "images" or data.lower().endswith(SUFFIXES):
        return True
    storage = Storage(data)
    return storage.exists(REC) or (source is None and storage.exists() and datasets.detect(storage) is not None)


def prepare(data: str, out: str, config: ImagesConfig) -> ImagesJob:
    """Read the labels, the folders' names or the index, and plan the parts.

    Raises:
        ManifestError: the manifest is invalid.
        DatasetError: there are no images, or the record file or a label file is damaged.
    """
    template = _template(config.data.template)
    images: pa.Table | npt.NDArray[np.int64]
    found: Dataset | None = None
    kind: Kind
    if data.lower().endswith(SUFFIXES):
        storage, name = folder_and_name(local_path(data))
        if not storage.exists(name):
            raise ManifestError(f"--data {data}: no such file")
        kind, images, stamp = "manifest", read_manifest(storage, name), _sha256(storage.read(name))
    else:
        storage = Storage(data)
        if not storage.exists():
            raise DatasetError(f"--data {data}: no such folder")
        if storage.exists(REC):
            kind, images = "records", image_offsets(storage)
            stamp = _sha256(storage.read(IDX))
        elif mark := datasets.detect(storage):
            found = datasets.read(storage, *mark)
            kind, images, stamp = mark[0], found.table, _stamp(found.table)
        else:
            kind, images = "folders", read_folders(storage)
            stamp = _sha256("\n".join(images["path"].to_pylist()).encode())
    if isinstance(images, pa.Table):
        signatures = _signatures(storage.root, images)
    else:
        signatures = (file_signature(storage.path(REC)),)
    return ImagesJob(out, storage.root, kind, images, stamp, config, found, template, signatures)


def _template(name: str) -> tuple[tuple[float, float], ...]:
    """Return the points (5, 2) of `data.template`."""
    if name.startswith(_STORE):
        return FaceStore.open(name.removeprefix(_STORE)).card.template
    return ImagesJob.template


def _signatures(root: str, table: pa.Table) -> tuple[str, ...]:
    """Return the signature of each image; "" if there is no such file, or none can be had.

    Folders on remote storage are listed, because one request for each image would take minutes.
    """
    files = [local_path(full_path(root, path)) for path in table["path"].to_pylist()]
    web = [file for file in files if is_http(file)]
    folders = sorted({file.rpartition("/")[0] for file in files if is_uri(file) and not is_http(file)})
    with ThreadPoolExecutor(REQUESTS_AT_A_TIME) as pool:
        remote = dict(zip(web, pool.map(file_signature, web), strict=True))
        for folder, found in zip(folders, pool.map(_signatures_in, folders), strict=True):
            remote |= {f"{folder}/{name}": signature for name, signature in found.items()}
    return tuple(remote.get(file, "") if is_uri(file) else signature_on_disk(file) for file in files)


def _signatures_in(folder: str) -> dict[str, str]:
    try:
        return Storage(folder).signatures()
    except (FileNotFoundError, PermissionError):  # Images can be read without the right to list them.
        return {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _stamp(table: pa.Table) -> str:
    """Return a hash of the paths and labels of a table."""
    content = hashlib.sha256("\n".join(table["path"].to_pylist()).encode())
    content.update(table["expression"].to_numpy().tobytes())
    content.update(labels(table).tobytes())
    return content.hexdigest()
