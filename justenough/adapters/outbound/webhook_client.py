"""One signed event over HTTP to one receiver: to the very address that was checked, without proxies, redirects or the answer's body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus

import httpx

from justenough.adapters.outbound.dns_guard import NotReached, UnknownHost, checked
from justenough.domain.integrations.retry_policy import Fault, Outcome, answered

TIMEOUT = 10.0
"""Seconds from looking the name up to the answer's first line; of its body nothing is read."""
CONNECTIONS = 8
PORTS = {"http": 80, "https": 443}


class Pinned(httpx.AsyncBaseTransport):
    """Connects to an address that was looked up and checked in the same breath: a name that changes its mind in between changes nothing.

    One per receiver: connections are kept by address, and two names of one address must not share theirs.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._inner = httpx.AsyncHTTPTransport(verify=httpx.create_ssl_context(), trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first of its host's addresses that takes a connection. Raises NotReached, UnknownHost and httpx's errors."""
        host, port = request.url.host, request.url.port or PORTS[request.url.scheme]
        found = await checked(host, port, private=self._private)
        for address in found[:-1]:
            try:
                return await self._inner.handle_async_request(_at(request, address))
            except httpx.ConnectError:
                continue
        return await self._inner.handle_async_request(_at(request, found[-1]))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


class Receiver:
    """One receiver of events."""

    def __init__(self, url: str, *, private: bool) -> None:
        self._url = url
        headers = {"user-agent": "JustEnough", "accept-encoding": "identity"}
        transport = Pinned(private=private)
        self._client = httpx.AsyncClient(transport=transport, headers=headers, timeout=TIMEOUT, trust_env=False, follow_redirects=False)

    async def post(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> Outcome:
        """Send it once and return what became of it; raises nothing that a receiver can bring about."""
        try:
            async with asyncio.timeout(TIMEOUT), self._client.stream("POST", self._url, content=body, headers=dict(headers)) as answer:
                return answered(answer.status_code, _phrase(answer.status_code), retry_after=answer.headers.get("retry-after"), now=now)
        except NotReached as error:
            return Outcome(Fault.REFUSED, str(error))
        except UnknownHost as error:
            return Outcome(Fault.AWAY, str(error))
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(Fault.AWAY, f"no answer in {TIMEOUT:g} s")
        except httpx.ConnectError as error:
            return Outcome(Fault.AWAY, f"no connection ({_cause(error)})")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(Fault.AWAY, f"no answer ({type(error).__name__})")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _at(request: httpx.Request, address: str) -> httpx.Request:
    """Return the request to one address, with the host's own name in its headers and for TLS, where the certificate is checked by it."""
    extensions = {**request.extensions, "sni_hostname": request.url.host}
    return httpx.Request(
        request.method, request.url.copy_with(host=address), headers=request.headers, stream=request.stream, extensions=extensions
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _cause(error: Exception) -> str:
    """The kind of the innermost error: a certificate that does not hold says so by its kind, and no text of the receiver's."""
    found: BaseException = error
    while (inner := found.__cause__ or found.__context__) is not None:
        found = inner
    return type(found).__name__
