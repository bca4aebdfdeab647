"""One signed event over HTTP to one receiver: to the very address that was checked, without proxies, redirects or the answer's body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus

import httpx

from justenough.adapters.outbound.dns_guard import NotReached, UnknownHost, resolve_allowed
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome, outcome_of_answer

REQUEST_TIMEOUT_S = 10.0
"""Seconds from looking the name up to the answer's first line; of its body nothing is read."""
MAX_CONNECTIONS = 8
DEFAULT_PORTS = {"http": 80, "https": 443}


class PinnedTransport(httpx.AsyncBaseTransport):
    """Connects to an address that was looked up and checked in the same breath: a name that changes its mind in between changes nothing.

    One per receiver: connections are kept by address, and two names of one address must not share theirs.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        self._inner = httpx.AsyncHTTPTransport(verify=httpx.create_ssl_context(), trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first of its host's addresses that takes a connection. Raises NotReached, UnknownHost and httpx's errors."""
        host, port = request.url.host, request.url.port or DEFAULT_PORTS[request.url.scheme]
        found = await resolve_allowed(host, port, private=self._private)
        for address in found[:-1]:
            try:
                return await self._inner.handle_async_request(_with_address(request, address))
            except httpx.ConnectError:
                continue
        return await self._inner.handle_async_request(_with_address(request, found[-1]))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


class WebhookClient:
    """One receiver of events."""

    def __init__(self, url: str, *, private: bool) -> None:
        self._url = url
        headers = {"user-agent": "JustEnough", "accept-encoding": "identity"}
        transport = PinnedTransport(private=private)
        self._client = httpx.AsyncClient(
            transport=transport, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False, follow_redirects=False
        )

    async def post(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> DeliveryOutcome:
        """Send it once and return what became of it; raises nothing that a receiver can bring about."""
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_S),
                self._client.stream("POST", self._url, content=body, headers=dict(headers)) as answer,
            ):
                return outcome_of_answer(
                    answer.status_code, _reason_phrase(answer.status_code), retry_after=answer.headers.get("retry-after"), now=now
                )
        except NotReached as error:
            return DeliveryOutcome(DeliveryFault.REFUSED, str(error))
        except UnknownHost as error:
            return DeliveryOutcome(DeliveryFault.AWAY, str(error))
        except (TimeoutError, httpx.TimeoutException):
            return DeliveryOutcome(DeliveryFault.AWAY, f"no answer in {REQUEST_TIMEOUT_S:g} s")
        except httpx.ConnectError as error:
            return DeliveryOutcome(DeliveryFault.AWAY, f"no connection ({_innermost_kind(error)})")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return DeliveryOutcome(DeliveryFault.AWAY, f"no answer ({type(error).__name__})")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _with_address(request: httpx.Request, address: str) -> httpx.Request:
    """Return the request to one address, with the host's own name in its headers and for TLS, where the certificate is checked by it."""
    extensions = {**request.extensions, "sni_hostname": request.url.host}
    return httpx.Request(
        request.method, request.url.copy_with(host=address), headers=request.headers, stream=request.stream, extensions=extensions
    )


def _reason_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _innermost_kind(error: Exception) -> str:
    """The kind of the innermost error: a certificate that does not hold says so by its kind, and no text of the receiver's."""
    found: BaseException = error
    while (inner := found.__cause__ or found.__context__) is not None:
        found = inner
    return type(found).__name__
