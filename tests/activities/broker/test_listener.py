"""A job's traffic to its broker costs the worker no more than one request may. Connections that flood are closed, and others are answered."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from activities.broker.broker import Broker
from activities.broker.errors import TooManyCalls
from activities.broker.server import rest_api
from activities.broker.server.listener import (
    MAX_CONCURRENT_REQUESTS,
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    MAX_PIPELINED_REQUESTS,
    BrokerAddress,
    serve_broker,
)
from activities.broker.server.rest_api import BYTES_PER_CALL, MALFORMED_COST, MAX_BODY_BYTES, REFUSAL_DELAY_S
from activities.broker.tools import ToolGateway
from justenough.domain.core.secret import Secret

Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ASKS = b"GET /v1/catalog HTTP/1.1\r\nHost: broker\r\n\r\n"
CHUNK = b"a" * 16_384


class Unhurried:
    """An application behind the sockets, which answers a request when the test says so."""

    def __init__(self) -> None:
        self.asked = self.admitted = 0
        self.charged = 0.0
        self.refuses: Exception | None = None
        self.answers = asyncio.Event()
        self.closed = asyncio.Event()

    def close(self) -> None:
        """Be closed."""

    def admit(self) -> None:
        """Admit everything, unless the test says otherwise."""
        if self.refuses:
            raise self.refuses
        self.admitted += 1

    def charge(self, calls: float) -> None:
        """Count what a request costs."""
        self.charged += calls

    async def drain(self) -> None:
        """Have nothing on the way."""

    async def catalog(self) -> dict[str, list[dict[str, Any]]]:
        """Answer late."""
        self.asked += 1
        await self.answers.wait()
        return {"access": []}


@asynccontextmanager
async def run_listener(*, loopback: bool = False) -> AsyncIterator[tuple[Unhurried, BrokerAddress]]:
    asked = Unhurried()
    door, tools, job = cast("Broker", asked), cast("ToolGateway", asked), f"j-test-{os.getpid()}"
    async with asyncio.timeout(300), serve_broker(door, tools, job=job, uid=os.getuid(), loopback=loopback) as place:
        yield asked, place


@asynccontextmanager
async def talk(place: BrokerAddress) -> AsyncIterator[Talk]:
    """Connect to the broker's socket for a block; then close the connection without a message."""
    reading, writing = await asyncio.open_unix_connection(place.path)
    try:
        yield reading, writing
    finally:
        writing.transport.abort()


async def flood(to: Talk, text: bytes = CHUNK, *, most: int) -> int:
    """Send the same again and again; return the bytes that were taken before the broker hung up."""
    sent = 0
    try:
        while sent < most:
            to[1].write(text)
            sent += len(text)
            # Both: a peer that is gone is learned of by writing, by reading, or by neither at once.
            await asyncio.wait_for(to[1].drain(), 60)
            await asyncio.sleep(0)
    except OSError:
        return sent
    return most


@pytest.mark.parametrize(
    "begins",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"GET / HTTP/1.1\r\nY",
        b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["header", "address", "name", "trailer"],
)
async def test_a_request_head_without_end_is_not_kept_in_memory(begins: bytes) -> None:
    async with run_listener() as (_, place), talk(place) as to:
        to[1].write(begins)
        # The kernel buffers data on both sides, which is not in the broker's memory.
        assert await flood(to, most=100 * MAX_HEAD_BYTES) < 50 * MAX_HEAD_BYTES


async def test_a_flood_of_headers_is_not_kept_in_memory() -> None:
    async with run_listener() as (_, place), talk(place) as to:
        to[1].write(b"GET / HTTP/1.1\r\n")
        assert await flood(to, b"X: y\r\n" * 1000, most=100 * MAX_HEAD_BYTES) < 50 * MAX_HEAD_BYTES


async def test_too_many_pipelined_requests_are_refused_and_not_kept() -> None:
    async with run_listener() as (asked, place), talk(place) as (reading, writing):
        writing.write(ASKS * (MAX_PIPELINED_REQUESTS + 2))
        assert (await reading.read()).startswith(b"HTTP/1.1 400")
        assert asked.asked == 1


async def test_a_few_pipelined_requests_are_answered_in_order() -> None:
    async with run_listener() as (asked, place), talk(place) as (reading, writing):
        asked.answers.set()
        writing.write(ASKS * MAX_PIPELINED_REQUESTS)
        for _ in range(MAX_PIPELINED_REQUESTS):
            assert (await reading.readuntil(b"]}")).startswith(b"HTTP/1.1 200")


async def test_a_request_counts_against_the_limit_until_it_is_answered_even_if_its_caller_is_gone() -> None:
    async with run_listener() as (asked, place):
        for number in range(MAX_CONCURRENT_REQUESTS):
            async with talk(place) as (_, writing):
                writing.write(ASKS)
                while asked.asked <= number:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)
        async with talk(place) as (reading, writing):
            writing.write(ASKS)
            assert (await reading.readline()).startswith(b"HTTP/1.1 503")
        assert asked.asked == MAX_CONCURRENT_REQUESTS
        asked.answers.set()


async def test_idle_connections_on_loopback_do_not_keep_the_job_from_its_broker() -> None:
    async with run_listener(loopback=True) as (asked, place):
        asked.answers.set()
        url = place.env["JUSTENOUGH_BROKER_URL"]
        assert not isinstance(url, Secret)
        held = [await asyncio.open_connection("127.0.0.1", urlsplit(url).port) for _ in range(2 * MAX_CONNECTIONS)]
        async with talk(place) as (reading, writing):
            writing.write(ASKS)
            assert (await reading.readline()).startswith(b"HTTP/1.1 200")
        for _, each in held:
            each.transport.abort()


async def test_a_stranger_on_loopback_who_resets_the_connection_needs_the_token_too() -> None:
    async with run_listener(loopback=True) as (asked, place):
        asked.answers.set()
        port = urlsplit(str(place.env["JUSTENOUGH_BROKER_URL"])).port
        # The broker accepts it once its peer is gone, and cannot learn the peer's address any more.
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(ASKS)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        token = cast("Secret", place.env["JUSTENOUGH_BROKER_TOKEN"]).reveal()
        reading, writing = await asyncio.open_connection("127.0.0.1", port)
        writing.write(ASKS.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode()))
        assert (await reading.readline()).startswith(b"HTTP/1.1 200")
        writing.transport.abort()
        assert asked.asked == 1


async def test_a_client_that_leaves_before_its_body_has_arrived_leaves_no_error_in_the_log() -> None:
    with capture_logs() as logged:
        async with run_listener() as (asked, place):
            asked.answers.set()
            async with talk(place) as (_, writing):
                writing.write(body_request("/v1/access", b"{}")[:-1])
                await writing.drain()
                while not asked.admitted:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)
            async with talk(place) as (reading, writing):
                writing.write(ASKS)
                assert (await reading.readline()).startswith(b"HTTP/1.1 200")
    assert logged == []


@pytest.mark.parametrize("request_", [b"\0\r\n\r\n", ASKS[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"])
async def test_a_job_cannot_fill_the_workers_log_with_odd_requests(caplog: pytest.LogCaptureFixture, request_: bytes) -> None:
    async with run_listener() as (asked, place), talk(place) as (reading, writing):
        asked.answers.set()
        writing.write(request_)
        assert (await reading.readline()).startswith(b"HTTP/1.1 ")
    assert caplog.messages == []


def body_request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: broker\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("path", ["/v1/access", "/mcp", "/openai/v1/chat/completions", "/nowhere"])
async def test_a_job_over_its_rate_limit_gets_its_refusal_after_a_delay(path: str) -> None:
    async with run_listener() as (asked, place), talk(place) as (reading, writing):
        asked.refuses, began = TooManyCalls(3.0), time.monotonic()
        writing.write(body_request(path, b"{}"))
        answer = await reading.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 3" in answer.lower()
        assert time.monotonic() - began >= REFUSAL_DELAY_S


@pytest.mark.parametrize(
    "body, status, cost",
    [
        (b"{" + b",".join(b'"%d":0' % number for number in range(5_000)) + b"}", b"400", MALFORMED_COST),
        (b"[" * 60_000, b"400", MALFORMED_COST),
        (b"{", b"422", 0.0),
        (b'{"resource": "x", "action": 1}', b"422", 0.0),
        (b" " * (MAX_BODY_BYTES + 1), b"413", 0.0),
    ],
    ids=["keys", "depth", "no JSON", "wrong", "size"],
)
async def test_an_abusive_body_is_not_validated_and_counts_as_many_calls(body: bytes, status: bytes, cost: float) -> None:
    async with run_listener() as (asked, place), talk(place) as (reading, writing):
        writing.write(body_request("/v1/access", body))
        answer = await reading.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert len(answer) < 2_000
        assert (b"connection: close" in answer.lower()) is (status == b"400")
        assert asked.charged == pytest.approx(cost + min(len(body), MAX_BODY_BYTES + 1) / BYTES_PER_CALL, rel=0.5)


async def test_a_connection_that_sends_no_complete_request_in_time_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.adapters.runtime.http_protocol.HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr("justenough.adapters.runtime.http_protocol.BODY_TIMEOUT_S", 0.2)
    silent, half_a_head, half_a_body, again = (
        b"",
        b"GET / HT",
        body_request("/v1/access", b"{}")[:-1],
        b"GET /nowhere HTTP/1.1\r\n\r\nGET / HT",
    )
    for sent in (silent, half_a_head, half_a_body, again):
        async with run_listener() as (_, place), talk(place) as (reading, writing):
            writing.write(sent)
            with suppress(ConnectionResetError):
                assert (await reading.read()).count(b"HTTP/1.1") == (sent == again)


async def test_a_request_that_is_complete_may_be_answered_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.adapters.runtime.http_protocol.HEAD_TIMEOUT_S", 0.1)
    monkeypatch.setattr("justenough.adapters.runtime.http_protocol.BODY_TIMEOUT_S", 0.1)
    async with run_listener() as (asked, place), talk(place) as (reading, writing):
        writing.write(ASKS)
        asyncio.get_running_loop().call_later(0.5, asked.answers.set)
        assert (await reading.readuntil(b"]}")).startswith(b"HTTP/1.1 200")


async def test_new_connections_are_accepted_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.broker.server.listener.MAX_NEW_CONNECTIONS_PER_SECOND", 10)
    async with run_listener() as (asked, place):
        asked.answers.set()
        began, more = time.monotonic(), 10
        for _ in range(MAX_CONNECTIONS + more):
            async with talk(place) as (reading, writing):
                writing.write(ASKS)
                assert (await reading.readuntil(b"]}")).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began >= (more - 1) / 10


async def test_a_connection_that_cannot_be_served_does_not_affect_other_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def fail_once(*arguments: Any, **named: Any) -> Any:
        built.append(arguments)
        if len(built) == 1:
            raise RuntimeError("the first one fails")
        return rest_api.build_app(*arguments, **named)

    monkeypatch.setattr("activities.broker.server.listener.build_app", fail_once)
    async with run_listener() as (asked, place):
        asked.answers.set()
        async with talk(place) as (reading, _):
            assert await reading.read() == b""
        async with talk(place) as (reading, writing):
            writing.write(ASKS)
            assert (await reading.readuntil(b"]}")).startswith(b"HTTP/1.1 200")
