"""The script that waits for a spot notice survives every answer of the metadata service, and drains the node once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SCRIPT = Path(__file__).parents[2] / "jobs/spot_notice.py"


class Service(ThreadingHTTPServer):
    """A metadata service. `answers` are its next answers to a request for the notice; afterwards there is none."""

    daemon_threads = True
    answers: list[int | str]
    token = b"token"


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        answer = self.server.answers.pop(0) if self.server.answers and self.server.answers[0] == "no token" else 200
        self.answer(403 if answer == "no token" else 200, self.server.token)

    def do_GET(self) -> None:
        answer = self.server.answers.pop(0) if self.server.answers else 404
        if answer == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        elif answer == "garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
        elif answer == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.answer(answer if isinstance(answer, int) else 200, NOTICE if answer == 200 else str(answer).encode())

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.end_headers()
        if code not in (204, 304):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), Answer)
    server.answers = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def start(service: Service, folder: Path, accepted_at: int = 1) -> subprocess.Popen[str]:
    """Start the script with a short time between polls, and a `ray` that accepts at its n-th call and records them."""
    ray = folder / "ray"
    ray.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n[ $(wc -l < {folder}/calls) -ge {accepted_at} ]\n')
    ray.chmod(0o755)
    script = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import spot_notice; spot_notice.POLL_S = 0.05; "
    script += "sys.exit(spot_notice.main(sys.argv[1:]))"
    environment = os.environ | {
        "METADATA": f"http://127.0.0.1:{service.server_port}", "PATH": f"{folder}:{os.environ['PATH']}",
        "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, "-c", script, "--address=10.0.0.1:6379"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


NOTICE = b'{"action": "terminate", "time": "2026-11-28T08:22:00Z"}'
ODD: list[int | str] = [404, 400, 401, 403, 405, 429, 500, 502, 503, 504]
ODD += ["no token", "reset", "garbage", "cut", "<html>", "{}", "[]", 404]


def test_every_answer_but_a_notice_is_survived(service: Service, tmp_path: Path) -> None:
    service.answers = [*ODD, 200]
    script = start(service, tmp_path)
    _, log = script.communicate(timeout=60)
    assert script.returncode == 0, log
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("drain-node --reason=DRAIN_NODE_REASON_PREEMPTION")
    assert "--address=10.0.0.1:6379" in call
    assert 100 <= int(call.rpartition("--deadline-remaining-seconds=")[2]) <= 110
    assert "answered 429" in log
    assert "answered 404" not in log
    assert "will terminate at 2026-11-28T08:22:00Z" in log
    assert len(log.splitlines()) == len(ODD) - 2 + 1  # one line per answer, unless it is the absence of a notice


def test_no_service_and_a_token_that_is_no_header_are_survived(service: Service, tmp_path: Path) -> None:
    service.token = b"\xff\n"
    script = start(service, tmp_path)
    time.sleep(1)
    assert script.poll() is None
    service.server_close()
    time.sleep(1)
    assert script.poll() is None
    script.kill()
    _, log = script.communicate()
    assert "UnicodeDecodeError" in log
    assert "refused" in log
    assert not (tmp_path / "calls").exists()


def test_a_drain_that_the_head_refuses_is_repeated(service: Service, tmp_path: Path) -> None:
    service.answers = [200]
    script = start(service, tmp_path, accepted_at=3)
    _, log = script.communicate(timeout=60)
    assert script.returncode == 0, log
    assert len((tmp_path / "calls").read_text().splitlines()) == 3
