"""The user's proxies and certificates for HTTP, HTTPS and S3, with local test servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aupipe import network
from aupipe.errors import ConfigError, MediaError
from aupipe.media import byte_source
from aupipe.storage import Storage, filesystem_of
from harness.proxy import Proxy, certificates, proxying
from harness.webserver import WebServer, serving

pytestmark = pytest.mark.unit

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_source, "_RETRIES_S", ())
    for name in (*network.VARIABLES, "grpc_proxy"):
        monkeypatch.setenv(name, "")  # so that values set by the code are also restored
        monkeypatch.delenv(name)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "x.mp4").write_bytes(b"0123456789")
    with serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
def proxy(web: WebServer) -> Iterator[Proxy]:
    with proxying({"example.test": web.port}) as running:
        yield running


def read(uri: str) -> bytes:
    with byte_source.opened(uri) as file:
        return bytes(file.read())


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_request_uses_the_proxy(
    web: WebServer, proxy: Proxy, name: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ:
        pytest.skip("Python reads no HTTP_PROXY in a CGI program")
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
    assert read("http://example.test/x.mp4") == b"0123456789"
    assert {target for _, target in proxy.requests} == {"http://example.test/x.mp4"}
    assert network.environment()["http_proxy"] == proxy.url


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_bypasses_the_proxy(web: WebServer, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    assert read(web.url("x.mp4")) == b"0123456789"
    assert proxy.requests
    proxy.requests.clear()
    monkeypatch.setenv(name, "other.test,127.0.0.1")
    assert read(web.url("x.mp4")) == b"0123456789"
    assert proxy.requests == []


def test_hosts_are_added_to_no_proxy_where_there_are_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.bypass_proxies("127.0.0.1") == {}
    monkeypatch.setenv("http_proxy", "http://proxy.test:1")
    for listed, expected in (("", "127.0.0.1,head"), ("a.test,head", "a.test,head,127.0.0.1"), ("*", "*")):
        monkeypatch.setenv("no_proxy", listed)
        monkeypatch.setenv("NO_PROXY", "")
        network.bypass_proxies("127.0.0.1", "head")
        assert os.environ["no_proxy"] == expected


def test_an_unreachable_proxy_is_a_media_error(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(MediaError, match=r"127\.0\.0\.1:9") as error:
        read(web.url("x.mp4"))
    assert error.value.reason == "unreadable"


def test_a_proxy_of_another_kind_is_an_error_if_it_would_be_used(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:s3cret@127.0.0.1:1080")
    with pytest.raises(ConfigError, match=r"^all_proxy: socks5://127.0.0.1:1080 \(http://HOST:PORT\); fix: ") as error:
        filesystem_of("http://example.test/x.mp4")
    assert error.value.exit_code == 2
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert read(web.url("x.mp4")) == b"0123456789"


def test_an_empty_variable_disables_the_proxy(web: WebServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", proxy.url)
    monkeypatch.setenv("http_proxy", "")
    assert read(web.url("x.mp4")) == b"0123456789"
    assert proxy.requests == []


@pytest.mark.parametrize("name", BUNDLES)
def test_a_private_certificate_authority_is_trusted_only_if_configured(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, certificate = certificates(tmp_path)
    (tmp_path / "x.mp4").write_bytes(b"0123456789")
    with serving(tmp_path, certificate=certificate) as web:
        with pytest.raises(MediaError, match="CERTIFICATE_VERIFY_FAILED"):
            read(web.url("x.mp4"))
        monkeypatch.setenv(name, str(bundle))
        assert read(web.url("x.mp4")) == b"0123456789"
        with proxying({}) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            assert read(web.url("x.mp4")) == b"0123456789"
            assert set(proxy.requests) == {("CONNECT", f"127.0.0.1:{web.port}")}


def test_a_missing_or_invalid_bundle_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=r"^REQUESTS_CA_BUNDLE: .*ca.pem \(No such file or directory; ") as error:
        filesystem_of("https://example.test/x.mp4")
    assert error.value.exit_code == 2
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"^REQUESTS_CA_BUNDLE: .*ca.pem \("):
        filesystem_of("https://example.test/x.mp4")
    with pytest.raises(ConfigError, match=r"^REQUESTS_CA_BUNDLE: .*ca.pem \("):
        filesystem_of("s3://bucket/x.mp4")


_S3 = """
import sys
from aupipe.storage import Storage
print(Storage("s3://bucket").read("x.mp4"))
"""


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in BUNDLES[:-1]]  # the test above reads them, too


@pytest.mark.parametrize("name", [BUNDLES[-1], *OTHERS])
def test_s3_uses_proxies_and_certificates(tmp_path: Path, name: str) -> None:
    """Read from a plain file server that ignores signatures, because the test is about the connection."""
    bundle, certificate = certificates(tmp_path)
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "x.mp4").write_bytes(b"0123456789")

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1"}
        command = [sys.executable, "-c", _S3]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return subprocess.run(
            command, env=clean | credentials | environment, capture_output=True, text=True, timeout=100, check=False
        )

    with proxying({}) as proxy, serving(tmp_path, certificate=certificate) as web, serving(tmp_path) as plain:
        secure = {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{web.port}"}
        if name == "SSL_CERT_FILE":
            assert "CERTIFICATE_VERIFY_FAILED" in run(**secure).stderr
        done = run(**secure, **{name: str(bundle)}, https_proxy=proxy.url)
        assert done.stdout == "b'0123456789'\n", done.stderr[-500:]
        assert set(proxy.requests) == {("CONNECT", f"127.0.0.1:{web.port}")}
        if name != "SSL_CERT_FILE":
            return
        proxy.requests.clear()
        open_to_all = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{plain.port}", "ALL_PROXY": proxy.url}
        assert run(**open_to_all).stdout == "b'0123456789'\n"
        assert {target for _, target in proxy.requests} == {f"http://127.0.0.1:{plain.port}/bucket/x.mp4"}
        proxy.requests.clear()
        assert run(**open_to_all, NO_PROXY="127.0.0.1").stdout == "b'0123456789'\n"
        assert proxy.requests == []


def test_storage_on_another_machine_keeps_the_settings(
    web: WebServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    import pickle

    sent = pickle.dumps(Storage("http://example.test"))
    settings = network.environment()
    assert settings["http_proxy"] == settings["https_proxy"] == proxy.url
    assert settings["grpc_proxy"] == ""  # Ray's nodes connect to each other directly
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read('x.mp4'))"
    command = [sys.executable, "-c", program]
    clean = {name: value for name, value in os.environ.items() if name not in network.VARIABLES}
    done = subprocess.run(command, input=sent, env=clean | settings, capture_output=True, check=False)
    assert done.stdout == b"b'0123456789'\n", done.stderr[-500:]
