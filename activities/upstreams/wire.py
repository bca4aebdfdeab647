"""Carries the MCP SDK's requests: to an address that was checked, no redirect followed, nothing unpacked, bounded in bytes whatever the server sends.

The SDK speaks httpx2; what checks addresses is our own transport of httpx (activities/sending), which this adapts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import httpx2

from activities.sending.posting import Pinned

MOST_RECEIVED = 4 * 1024 * 1024
"""Bytes of all answers of one conversation."""
SESSION = "mcp-session-id"
UNPACKED = frozenset({"", "identity"})


class Refused(Exception):
    """What a server does that is not put up with; the message says what, and nothing that the server said."""


class Wire(httpx2.AsyncBaseTransport):
    """Of one conversation with one server."""

    def __init__(self, *, private: bool) -> None:
        self._inner = Pinned(private=private)
        self._received = 0
        self.refused: Refused | None = None
        """Why this conversation is over, where it is: the SDK tells of some errors only that something went wrong."""
        self.status = 0
        """Of the newest answer."""
        self.session = ""
        """What the server calls this conversation, where it keeps any."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Raises Refused, and what Pinned raises."""
        if self.refused:
            raise self.refused
        body = await request.aread()
        sent = httpx.Request(request.method, str(request.url), headers=request.headers.raw, content=body, extensions=request.extensions)
        answer = await self._inner.handle_async_request(sent)
        self.status = answer.status_code
        self.session = answer.headers.get(SESSION, "") or self.session
        try:
            self._must_be_plain(answer)
        except Refused:
            await answer.aclose()
            raise
        return httpx2.Response(answer.status_code, headers=answer.headers.raw, stream=_Counted(self, answer), request=request)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()

    def takes(self, size: int) -> None:
        """Count what came. Raises Refused where it is too much."""
        self._received += size
        if self._received > MOST_RECEIVED:
            raise self._refusing(f"the upstream sent more than {MOST_RECEIVED:,} bytes")

    def _must_be_plain(self, answer: httpx.Response) -> None:
        if 300 <= answer.status_code < 400:
            raise self._refusing(f"the upstream answers with a redirect (HTTP {answer.status_code}), which is not followed")
        if answer.headers.get("content-encoding", "").lower() not in UNPACKED:
            raise self._refusing("the upstream packs its answers, though it was told not to")

    def _refusing(self, why: str) -> Refused:
        self.refused = Refused(why)
        return self.refused


class _Counted(httpx2.AsyncByteStream):
    """An answer's bytes as they come."""

    def __init__(self, wire: Wire, answer: httpx.Response) -> None:
        self._wire = wire
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._answer.aiter_raw():
            self._wire.takes(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        """Hang up on the rest."""
        await self._answer.aclose()
