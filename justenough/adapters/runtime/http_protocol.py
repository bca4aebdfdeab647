"""uvicorn's HTTP protocol with deadlines for the parts that a client must send. uvicorn itself closes only connections that are silent
after a response.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 30
"""Seconds within which a connection must send a complete head: the first one, or the next one after a response.

Longer than clients keep idle connections (httpx: 5 s), or a request could arrive on a connection that is just being closed.
"""
BODY_TIMEOUT_S = 60
"""Seconds within which the body that belongs to a head must be complete."""


class HttpProtocolWithDeadlines(HttpToolsProtocol):
    """Closes connections that do not complete a request in time. A response may take any time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the deadline for the head of the first request."""
        super().connection_made(transport)
        self._set_deadline(HEAD_TIMEOUT_S)

    def on_headers_complete(self) -> None:
        self._set_deadline(BODY_TIMEOUT_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the deadline: the request is complete."""
        self._set_deadline(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the deadline for the next head, unless the next request has already arrived."""
        if not self.pipeline:
            self._set_deadline(HEAD_TIMEOUT_S)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        super().connection_lost(exc)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
