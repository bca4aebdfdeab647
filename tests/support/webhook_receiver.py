"""A webhook receiver: a small HTTP server on loopback that records its requests and can misbehave in its responses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from justenough.domain.core.secret import Secret
from justenough.domain.integrations.webhook_signature import parse_signing_secret, why_delivery_invalid

HANG, ENDLESS_BODY, ENDLESS_HEADERS, CUT = "hang", "endless body", "endless headers", "cut"
Answer = int | str | tuple[int, dict[str, str]]


@dataclass(frozen=True)
class ReceivedRequest:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def why_not_signed(self, secret: str, now: datetime) -> str | None:
        return why_delivery_invalid(self.headers, self.body, [parse_signing_secret(Secret(secret))], now=now)


@dataclass
class Receiver:
    """Listens for requests. `answer` returns the response to the n-th request, from 0."""

    answer: Callable[[int], Answer] = lambda _: 204
    requests: list[ReceivedRequest] = field(default_factory=list)
    port: int = 0
    names: list[str | None] = field(default_factory=list)
    """The server name (SNI) of each TLS connection."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Once set, requests that hang get their response."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    @property
    def events(self) -> list[Any]:
        return [request.json for request in self.requests]

    async def until(self, count: int, within: float = 30) -> list[ReceivedRequest]:
        """Return the requests once there are so many. Raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    @contextlib.asynccontextmanager
    async def listen(self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.released.set()
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while request := await _read(reader):
                number = len(self.requests)
                self.requests.append(request)
                async with self._news:
                    self._news.notify_all()
                if not await self._answer(self.answer(number), writer):
                    break
        writer.close()

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        """Send a response; return whether the connection stays open."""
        if answer == CUT:
            return False
        if answer == HANG:
            await self.released.wait()
            answer = 204
        if answer in (ENDLESS_BODY, ENDLESS_HEADERS):
            head = b"HTTP/1.1 200 OK\r\n" + (b"content-type: text/plain\r\n\r\n" if answer == ENDLESS_BODY else b"")
            writer.write(head)
            while not self.released.is_set():
                writer.write(b"x: y\r\n" * 1000)
                await writer.drain()
            return False
        status, headers = answer if isinstance(answer, tuple) else (int(answer), {})
        lines = [f"HTTP/1.1 {status} whatever", "content-length: 0", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return ReceivedRequest(path=first.split(" ")[1], headers=headers, body=body)
