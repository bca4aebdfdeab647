"""HTTP clients of servers: proxies, what --debug prints, and servers that do not answer.

--debug prints each request to a server, its status, time and request id. No headers, no bodies and no login codes, which may be secrets.
"""

from __future__ import annotations

import os
import ssl
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from console.cli import terminal
from console.cli.errors import Unreachable, WrongUsage
from console.cli.options import close_with_command, current_options

REQUEST_ID_HEADER = "X-Request-Id"
"""The console logs it with the request."""
GATEWAY_STATUSES = frozenset({502, 503, 504})
"""What a proxy answers while the server behind it does not. Vault itself answers 503 while it is sealed."""
LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}
LOOPBACK_HINT = "Start it. If it belongs to the stack on this machine: justenough up --detach"
"""A server on this machine can be part of the stack, or somebody's own: then `up` would start another one."""


def open_http_client(address: str, *, path: str, cacert: str | None = None, **settings: Any) -> httpx.Client:
    """Return a client of the server at an address, for paths below `path`, until the running command ends. Loopback has no proxy.

    `cacert`: the file with the CAs of its certificate; None for those in SSL_CERT_FILE, or else the usual ones. Raises Failure.
    """
    verify = tls_context(address, cacert)
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [begin], "response": [report]} if current_options().debug else {}
    try:
        client = httpx.Client(base_url=f"{address}{path}", verify=verify, trust_env=not is_loopback(address), event_hooks=hooks, **settings)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # The error may contain a proxy's password.
        why = "SOCKS proxies are not supported" if isinstance(error, ImportError) else "this address or that of its proxy is invalid"
        hint = "Proxies come from HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; NO_PROXY exempts hosts"
        raise WrongUsage(f"cannot connect to {address}: {why}", hint=hint) from error
    return close_with_command(client)


def tls_context(address: str, cacert: str | None) -> ssl.SSLContext | bool:
    # Without TLS, do not load certificates, which is slow. A scheme may have capital letters.
    if urlsplit(address).scheme != "https":
        return False
    try:
        return ssl.create_default_context(cafile=cacert) if cacert else httpx.create_ssl_context()
    except OSError as error:
        source, file = ("VAULT_CACERT", cacert) if cacert else ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE"))
        raise WrongUsage(f"{source}: cannot read certificates from {file}") from error


def is_loopback(address: str) -> bool:
    """Whether an address is a loopback address, which must not go through a proxy."""
    return urlsplit(address).hostname in LOOPBACK_HOSTS


def begin(request: httpx.Request) -> None:
    request.headers.setdefault(REQUEST_ID_HEADER, uuid.uuid4().hex)
    request.extensions["began"] = time.monotonic()


def report(response: httpx.Response) -> None:
    request = response.request
    took = time.monotonic() - request.extensions["began"]
    number = response.headers.get(REQUEST_ID_HEADER) or request.headers[REQUEST_ID_HEADER]
    # The query of a login by OIDC has its code, and the nonce with which Vault redeems it.
    url = request.url.copy_with(query=None) if "code" in request.url.params else request.url
    terminal.write_message(f"debug: {request.method} {url} {response.status_code}, {took * 1000:.0f} ms, request id {number}")


def to_unreachable(server: str, address: str, error: httpx.TransportError, *, authority: str) -> Unreachable:
    """Return the failure for a server that does not answer, with a short reason that contains nothing of what was sent, and what to do.

    `authority`: the variable that names the file with the CA of its certificate.
    """
    text = str(error)
    if isinstance(error, httpx.TimeoutException):
        reason = "no answer in time"
    else:
        refused = isinstance(error, httpx.ConnectError) and "refused" in text
        reason = "connection refused" if refused else text[:200] or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = f"Set {authority} to a file with the CA that signed its certificate, or use an address that is in the certificate"
    elif is_loopback(address):
        hint = LOOPBACK_HINT
    elif address.startswith("http:") and isinstance(error, httpx.ReadError | httpx.WriteError):
        hint = "If it speaks TLS, write its address with https://"
    else:
        hint = "Check that it runs, and that this machine reaches it. Your profiles and their servers: justenough profile list"
    return Unreachable(f"{server} at {address} does not answer ({reason})", hint=hint)
