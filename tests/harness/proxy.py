"""A local proxy that records its requests, and a certificate authority with a certificate for a server."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.webserver import running

_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"  # of S3
_HOP_BY_HOP = ("Proxy-Connection", "Connection", "Expect")


@dataclass
class Proxy:
    """The port and the log of a running proxy.

    Attributes:
        requests: method and target of each request.
        received_bytes: bodies of the answers to GET, without those of tunnels.
        busy: every request is answered with 503, as S3 answers when it is asked to slow down.
    """

    port: int = 0
    received_bytes: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    busy: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def proxying(to: dict[str, int], latency_s: float = 0.0) -> Iterator[Proxy]:
    """Forward requests and tunnels within the block.

    Args:
        to: name of a server → local port that replaces it. Other names are refused, except 127.0.0.1.
        latency_s: time that each request waits before it is forwarded.
    """
    proxy, lock = Proxy(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # needed for `Expect: 100-continue`, which S3 clients send

        def do_CONNECT(self) -> None:
            proxy.requests.append(("CONNECT", self.path))
            host, _, port = self.path.partition(":")
            with socket.create_connection(("127.0.0.1", to.get(host, int(port)))) as server:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=pump, args=(server, self.connection), daemon=True)
                back.start()
                pump(self.connection, server)
                back.join()
            self.close_connection = True

        def _forward(self) -> None:
            proxy.requests.append((self.command, self.path))
            target = urlsplit(self.path)
            port = to.get(target.hostname or "", target.port or 80)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(latency_s)
            if proxy.busy:
                self.send_response(503)
                self.send_header("Content-Length", str(len(_BUSY)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else _BUSY)
                return
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name not in _HOP_BY_HOP}
            connection.request(self.command, f"{target.path}?{target.query}".rstrip("?"), body or None, headers)
            answer = connection.getresponse()
            data = answer.read()
            if self.command == "GET":
                with lock:
                    proxy.received_bytes += len(data)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "server", "date", "connection"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.port = server.server_port
    with running(server):
        yield proxy


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side closed the connection


def certificates(folder: Path) -> tuple[Path, Path]:
    """Create a certificate authority and a certificate for example.test and 127.0.0.1. Return (bundle, server file)."""
    bundle, server = folder / "ca.pem", folder / "server.pem"
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    run = lambda *a: subprocess.run(["openssl", *map(str, a)], check=True, capture_output=True)  # noqa: E731
    ca = ["-addext", "keyUsage=critical,keyCertSign"]
    run("req", "-x509", *made, "-subj", "/CN=own CA", *ca, "-keyout", folder / "ca.key", "-out", bundle)
    names = "subjectAltName=DNS:example.test,IP:127.0.0.1"
    run("req", "-x509", *made, "-CA", bundle, "-CAkey", folder / "ca.key", "-subj", "/CN=example.test", "-addext",
        names, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", folder / "server.key", "-out",
        folder / "server.crt")  # fmt: skip
    server.write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    return bundle, server
