"""HTTP to servers that the configuration names: to the very address that was checked, without proxies, redirects or compression."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx

from justenough.adapters.outbound.dns_guard import resolve_allowed

MAX_CONNECTIONS = 8
DEFAULT_PORTS = {"http": 80, "https": 443}
UNCOMPRESSED_ENCODINGS = frozenset({"", "identity"})
"""Accepted values of `Content-Encoding` if a response's bytes are counted as they arrive."""


class PinnedTransport(httpx.AsyncBaseTransport):
    """Connects to the very address that was resolved and checked, so that DNS rebinding has no effect.

    Use one per receiver: connections are pooled by address, and two names with the same address must not share one.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        self._inner = httpx.AsyncHTTPTransport(verify=httpx.create_ssl_context(), trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first of its host's addresses that accepts a connection. Raises ForbiddenAddress, UnknownHost, httpx's errors."""
        host, port = request.url.host, request.url.port or DEFAULT_PORTS[request.url.scheme]
        *others, last = await resolve_allowed(host, port, private=self._private)
        for address in others:
            try:
                return await self._inner.handle_async_request(_with_address(request, address))
            except httpx.ConnectError:
                continue
        return await self._inner.handle_async_request(_with_address(request, last))

    async def aclose(self) -> None:
        await self._inner.aclose()


def open_client(*, private: bool, timeout: float, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """Return a client for one receiver, without proxies, redirects or compressed responses."""
    all_headers = {"user-agent": "JustEnough", "accept-encoding": "identity", **(headers or {})}
    return httpx.AsyncClient(
        transport=PinnedTransport(private=private), headers=all_headers, timeout=timeout, trust_env=False, follow_redirects=False
    )


async def iter_chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield a response's body as it arrives, undecoded. Other tasks run in between, however many chunks arrive at once."""
    async for chunk in response.aiter_raw():
        yield chunk
        await asyncio.sleep(0)


def _with_address(request: httpx.Request, address: str) -> httpx.Request:
    """Return the request to one address. Its headers, and the check of the TLS certificate, keep the host's name."""
    extensions = {**request.extensions, "sni_hostname": request.url.host}
    return httpx.Request(
        request.method, request.url.copy_with(host=address), headers=request.headers, stream=request.stream, extensions=extensions
    )
