"""A local web server that serves the files of a folder and records its requests."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class WebServer:
    """The settings and the log of a running server.

    Attributes:
        requests: method, path and range of each request.
        answers: status and number of bytes of each response.
    """

    folder: Path
    ranges: bool
    account: str
    secure: bool = False
    port: int = 0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)

    def url(self, name: str, account: str = "") -> str:
        return f"http{'s' * self.secure}://{account and account + '@'}127.0.0.1:{self.port}/{name}"


@contextmanager
def serving(
    folder: Path, *, ranges: bool = True, account: str = "", certificate: Path | None = None
) -> Iterator[WebServer]:
    """Serve a folder within the block. The response to a name that is a number has that status.

    Args:
        account: required credentials, `name:password`.
        certificate: file with a certificate and its key; None: HTTP instead of HTTPS.
    """
    web = WebServer(folder, ranges, account, secure=certificate is not None)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, whole: bool) -> None:
            name, byte_range = self.path.partition("?")[0][1:], self.headers.get("Range", "")
            web.requests.append((self.command, self.path, byte_range))
            path, status, data = folder / name, HTTPStatus.OK, b""
            expected = "Basic " + base64.b64encode(web.account.encode()).decode()
            if web.account and self.headers.get("Authorization") != expected:
                status = HTTPStatus.UNAUTHORIZED
            elif name.isdigit():
                status = HTTPStatus(int(name))
            elif not path.is_file():
                status = HTTPStatus.NOT_FOUND
            else:
                data = path.read_bytes()
            size = len(data)
            if web.ranges and byte_range and status == HTTPStatus.OK:
                first, _, last = byte_range.removeprefix("bytes=").partition("-")
                data, status = data[int(first) : int(last) + 1], HTTPStatus.PARTIAL_CONTENT
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == HTTPStatus.PARTIAL_CONTENT:
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{size}")
            self.end_headers()
            web.answers.append((status, len(data) if whole else 0))
            if whole:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.port = server.server_port
    with running(server):
        yield web


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve on a thread within the block."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
