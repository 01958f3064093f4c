"""Training from a store on an S3 server reads few bytes more than the store has, over all ranks of a node."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.proxy import proxying
from harness.s3_server import S3Server
from harness.training_rank import train_epochs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]  # tests/data/test_loaded.py is its short case

STORE = "s3://archive/store"
WORLD = 2


def test_the_ranks_of_a_node_read_a_store_once(
    make_store: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_store(train=6, validation=2, frames=400)
    size = sum(path.stat().st_size for path in Path(local).glob("split=*/*.parquet"))
    server = S3Server(tmp_path)
    try:
        server.files.put(local, "archive/store", recursive=True)
        with proxying({}) as proxy:
            changed = {"http_proxy": proxy.url, "TMPDIR": str(tmp_path)}
            for name, value in {**server.environment, **changed}.items():
                monkeypatch.setenv(name, value)
            context = multiprocessing.get_context("spawn")
            ranks = [context.Process(target=train_epochs, args=(rank, WORLD, STORE)) for rank in range(WORLD)]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join()
            assert [process.exitcode for process in ranks] == [0] * WORLD
            received = proxy.received_bytes
    finally:
        server.kill()
    assert 0.8 * size < received <= 1.3 * size  # both epochs, validation and labels; the rest is the shards' footers
