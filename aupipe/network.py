"""The user's network settings, proxies and certificate authorities, for every library that requests data from a server.

Libraries read different variables: aiohttp reads neither `all_proxy` nor `REQUESTS_CA_BUNDLE`, and botocore reads
certificates only from `AWS_CA_BUNDLE`. This module combines them, so that setting one variable is enough.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from aupipe.errors import ConfigError, redact

if TYPE_CHECKING:
    import aiohttp

_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_DIR")  # in order
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
VARIABLES = (*_PROXIES, *(name.upper() for name in _PROXIES), *_CERTIFICATES)


def environment() -> dict[str, str]:
    """Complete the proxy variables of this process, and return all its network settings, for the workers."""
    _complete_proxies()
    settings = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if settings:  # gRPC connects only Ray's nodes. An empty value keeps it from using the proxy for them.
        settings["grpc_proxy"] = os.environ.setdefault("grpc_proxy", "")
    return settings


def bypass_proxies(*hosts: str) -> dict[str, str]:
    """Add hosts to no_proxy of this process if it has proxies, and return the variables, for the workers."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if not getproxies().keys() - {"no"} or listed.strip() == "*":
        return {}
    names = dict.fromkeys(["no_proxy", "NO_PROXY"], ",".join(dict.fromkeys([*filter(None, listed.split(",")), *hosts])))
    os.environ.update(names)
    return names


def apply_proxies(host: str) -> None:
    """Set the environment variables by which each library finds the user's proxies for `host`.

    Raises:
        ConfigError: a proxy is not an HTTP proxy, and `no_proxy` does not name the host.
    """
    unusable = _complete_proxies()
    if unusable and not proxy_bypass(host):
        name, proxy = next(iter(unusable.items()))
        raise ConfigError(
            f"{name}: {redact(proxy)} (http://HOST:PORT); fix: export http_proxy and https_proxy of that form, "
            f"or add {host} to no_proxy"
        )


def _complete_proxies() -> dict[str, str]:
    """Use `all_proxy` for a missing proxy, add a missing scheme, and return the proxies that are not HTTP proxies."""
    configured, unusable = getproxies(), dict[str, str]()
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        # An empty variable disables the proxy, as in curl.
        proxy = configured.get(scheme) or ("" if name in os.environ else configured.get("all", ""))
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        if proxy and not proxy.lower().startswith("http://"):
            unusable[name if configured.get(scheme) else "all_proxy"] = proxy
        elif proxy:
            os.environ[name] = proxy
    return unusable


def certificates() -> str:
    """Return the file or folder of certificate authorities that the user names; "" for those of the system.

    Raises:
        ConfigError: it does not exist, or contains no certificates.
    """
    name = next((name for name in _CERTIFICATES if os.environ.get(name)), "")
    path = os.environ.get(name, "")
    if path:
        _context(name, path)
    return path


def s3_options() -> dict[str, Any]:
    """Return s3fs options by which botocore uses the user's certificates. It reads the proxies itself."""
    from botocore.session import get_session  # type: ignore[import-untyped]

    bundle = get_session().get_config_variable("ca_bundle")  # AWS_CA_BUNDLE, or the user's ~/.aws/config
    if bundle:
        _context("AWS_CA_BUNDLE", str(bundle))
        return {}
    path = certificates()
    if os.path.isdir(path):
        raise ConfigError(f"certificates for s3://: {path} is a folder (a file); fix: export AWS_CA_BUNDLE=FILE.pem")
    return {"client_kwargs": {"verify": path}} if path else {}


async def http_client(*, loop: Any, path: str) -> aiohttp.ClientSession:
    """Open the session that fsspec uses for HTTP, with the user's proxies and the certificates at `path`.

    Reading fails after 60 s without data from the server.
    """
    import aiohttp

    connector = aiohttp.TCPConnector(loop=loop, ssl=_context("certificates", path) if path else True)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
    return aiohttp.ClientSession(loop=loop, connector=connector, timeout=timeout, trust_env=True)


def host_of(uri: str) -> str:
    """Return the host of a URI; for s3:// that of the endpoint."""
    if uri.startswith("s3"):
        uri = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com"
    return urlsplit(uri).netloc.rpartition("@")[2]


def _context(name: str, path: str) -> ssl.SSLContext:
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # includes ssl.SSLError, for a file without certificates
        reason = error.strerror or str(error)
        raise ConfigError(
            f"{name}: {path} ({reason}; a PEM file of certificates); fix: name the file, or unset {name}"
        ) from None
