"""Calls that are under way when a job's access is closed: each gets its answer, and none is logged as an error of the worker."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities.broker.broker import Broker
from activities.broker.tools import ToolGateway, mcp_server
from activities.broker.tools.mcp_app import McpApp
from activities.issuing.lease_keeper import LeaseKeeper
from activities.issuing.results import AccessClosed
from activities.revocation import revoke
from justenough.adapters.vault import VaultUnavailable

JOB = "j-test"
NOBODY: Any = None
DEPS: Any = SimpleNamespace(ticks=lambda: 0.0, now=lambda: datetime.now(UTC))


@asynccontextmanager
async def asyncio_errors() -> AsyncIterator[list[str]]:
    """Yield a list that has, after the block, what asyncio would have logged about work whose error nobody retrieved."""
    errors: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
    try:
        yield errors
        # asyncio reports the error when the work is deleted.
        await asyncio.sleep(0)
        gc.collect()
    finally:
        # Other tests use the same loop.
        loop.set_exception_handler(None)


def keep_one(*, lease_seconds: int | None, reason_to_end: Any = None) -> LeaseKeeper:
    """Return a keeper of one credential, c-1, that would end long after the test."""
    issuer: Any = SimpleNamespace(others_beside=lambda _: (), forget=lambda *_: None, reason_to_end=reason_to_end)
    keeper, credential = LeaseKeeper(DEPS, JOB, issuer), SimpleNamespace(id="c-1", lease_id="a lease")
    item = SimpleNamespace(credential=credential, lease_seconds=lease_seconds, began=0.0, seconds_left=lambda **_: 600.0)
    keeper.keep(cast("Any", item))
    return keeper


async def test_a_call_whose_caller_has_gone_away_is_not_logged() -> None:
    verified: Any = SimpleNamespace(statement=SimpleNamespace(job=JOB), spec=None)
    broker = Broker(DEPS, verified, NOBODY, NOBODY, NOBODY, owner="", notify_workflow=NOBODY)
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.Event().wait()

    async with asyncio_errors() as errors:
        caller = asyncio.create_task(broker.run_while_open(work()))
        await began.wait()
        caller.cancel()
        await asyncio.wait({caller})
        del caller
        broker.close()
        await broker.drain()
    assert errors == []


@pytest.mark.parametrize("closes", ["before", "during"])
async def test_work_that_fails_because_access_is_closed_is_not_logged(closes: str, recwarn: pytest.WarningsRecorder) -> None:
    verified: Any = SimpleNamespace(statement=SimpleNamespace(job=JOB), spec=None)
    broker = Broker(DEPS, verified, NOBODY, NOBODY, NOBODY, owner="", notify_workflow=NOBODY)

    async def work() -> None:
        try:
            broker.close()
            await asyncio.Event().wait()
        finally:
            # The work's own next call of the broker raises this, too.
            raise AccessClosed(JOB)

    async with asyncio_errors() as errors:
        if closes == "before":
            broker.close()
        with pytest.raises(AccessClosed):
            await broker.run_while_open(work())
    assert errors == []
    assert [str(one.message) for one in recwarn] == []


async def test_a_caller_that_waits_for_the_revocation_of_one_credential_learns_that_all_access_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revoking, over = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        revoking.set()
        assert over.wait(60)

    monkeypatch.setattr(revoke, "revoke_by_handle", hang)
    keeper = keep_one(lease_seconds=None)
    releasing = asyncio.create_task(keeper.revoke_credential("c-1", "the job released it"))
    try:
        assert await asyncio.to_thread(revoking.wait, 60)
        await keeper.close()
        # A CancelledError would be an error of the server: the job would get no answer, and the worker would log a traceback.
        with pytest.raises(AccessClosed):
            await asyncio.wait_for(releasing, 60)
    finally:
        over.set()


async def test_a_renewal_that_fails_while_its_session_ends_is_not_logged() -> None:
    renewing, over = threading.Event(), threading.Event()

    def fail_late(_: object) -> None:
        renewing.set()
        assert over.wait(60)
        message = "away"
        raise VaultUnavailable(message)

    async with asyncio_errors() as errors:
        keeper = keep_one(lease_seconds=0, reason_to_end=fail_late)
        assert await asyncio.to_thread(renewing.wait, 60)
        closing = asyncio.create_task(keeper.close())
        await asyncio.sleep(0)
        over.set()
        await closing
    assert errors == []


async def test_a_tool_call_that_waits_until_the_tools_server_has_started_learns_that_access_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading, over = threading.Event(), threading.Event()
    build_manager = mcp_server.build_manager

    def build_slowly(tools: ToolGateway) -> Any:
        loading.set()
        assert over.wait(60)
        return build_manager(tools)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(mcp_server, "build_manager", build_slowly)
    broker = SimpleNamespace(closed=asyncio.Event())
    app = McpApp(NOBODY, cast("Any", broker))
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": [(b"content-type", b"application/json")]}
    calling = asyncio.create_task(app(scope, receive, cast("Any", send)))
    assert await asyncio.to_thread(loading.wait, 60)
    broker.closed.set()
    ending = asyncio.create_task(app.end())
    over.set()
    with pytest.raises(AccessClosed):
        await asyncio.wait_for(calling, 60)
    await ending
