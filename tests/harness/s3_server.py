"""A real S3 server on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

WEED = Path(sys.executable).with_name("weed")
# `weed` also takes each port + 10000. Both are above those of Ray's workers and below those of outgoing connections.
_PORTS, _SECOND = range(20_000, 22_768), 10_000
_UPLOADS = 32  # at a time


class S3Server:
    """A local SeaweedFS with one bucket. `environment` contains the endpoint and the credentials."""

    def __init__(self, folder: Path) -> None:
        identity = {"name": "me", "credentials": [{"accessKey": "key", "secretKey": "secret"}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
        options = [f"-{part}.port={port}" for part, port in ports.items()]
        place = [f"-s3.config={folder}/s3.json", f"-dir={folder}/data", "-ip=127.0.0.1"]
        unused = ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # whose fixed ports a second server would find taken
        self._command = [str(WEED), "server", "-s3", *place, *options, *unused]
        given = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        self._filer = f"http://127.0.0.1:{ports['filer']}"
        self.environment = os.environ | given | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}"}
        self.start()
        self.files = self._connected()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()  # SIGTERM takes long.
        self._process.wait()

    def write_small(self, paths: Iterable[str]) -> None:
        """Write objects of one byte, past S3, ten times as fast.

        Args:
            paths: of the objects, from the bucket on.
        """
        asyncio.run(self._write_small(paths))

    async def _write_small(self, paths: Iterable[str]) -> None:
        left = iter(paths)
        async with aiohttp.ClientSession(self._filer, raise_for_status=True) as session:

            async def write() -> None:
                for path in left:
                    async with session.put(f"/buckets/{path}", data=b"1"):
                        pass

            await asyncio.gather(*(write() for _ in range(_UPLOADS)))

    def _connected(self) -> s3fs.S3FileSystem:
        deadline = time.monotonic() + 60
        while True:
            url = self.environment["AWS_ENDPOINT_URL"]
            files = s3fs.S3FileSystem(
                key="key", secret="secret", endpoint_url=url, skip_instance_cache=True, use_listings_cache=False
            )
            try:
                files.mkdir("archive")
            except (OSError, BotoCoreError):
                assert time.monotonic() < deadline
                time.sleep(0.5)
            else:
                return files


def _free_ports(count: int) -> list[int]:
    """Return different ports that are free, as their seconds are."""
    found = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + _SECOND))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found
