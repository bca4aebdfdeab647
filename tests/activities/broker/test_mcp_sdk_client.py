"""The official SDK's own client lists, calls and reads through the gateway; nobody gets in without the job's token."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.client import ConnectMode
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from structlog.testing import capture_logs

from activities.broker.tools import ToolGateway
from activities.broker.tools.gateway import ToolAnswer
from activities.broker.tools.mcp_server import build_manager, build_server
from tests.activities.broker.remote_job import Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request
from tests.activities.broker.test_tool_gateway import HEADERS, SHOPS, call_tool, newest_request, tenant_order, until_only
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers


@asynccontextmanager
async def connect_client(job: Puppet, *, mode: ConnectMode = "auto") -> AsyncIterator[Client]:
    """A client that bears the job's token. `mode`: `legacy` for MCP's versions with a handshake."""
    headers = {"Authorization": f"Bearer {job.env['JUSTENOUGH_BROKER_TOKEN']}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=180, trust_env=False) as web,
        Client(streamable_http_client(f"{job.env['JUSTENOUGH_BROKER_URL']}/mcp", http_client=web), mode=mode) as found,
    ):
        yield found


def test_the_sdks_client_lists_calls_and_reads(broker_job: Puppet, shop: Shop) -> None:
    order = tenant_order(shop)
    until_only(broker_job, SHOPS)

    async def use() -> tuple[set[str], Any, Any]:
        async with connect_client(broker_job) as mcp:
            names = {tool.name for tool in (await mcp.list_tools()).tools}
            called = await mcp.call_tool("find-order", {"order_id": order})
            return names, called, await mcp.read_resource("justenough://catalog")

    names, called, read = asyncio.run(use())
    assert names == SHOPS
    assert not called.is_error
    assert json.loads(called.content[0].text)["rows"][0]["id"] == order
    assert "refund-order" in read.contents[0].text


def test_the_sdks_client_gets_progress_while_its_call_waits_for_approval(ops: Human, lead: Human, shop: Shop) -> None:
    order, heard = tenant_order(shop), []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async def use(job: Puppet) -> Any:
        async with connect_client(job) as mcp:
            given = {"order_id": order, "amount": 3, "reason": "asked by the sdk"}
            return await mcp.call_tool("refund-order", given, progress_callback=progress)

    with launch_puppet(ops) as job:
        answers: list[Any] = []
        calling = threading.Thread(target=lambda: answers.append(asyncio.run(use(job))))
        calling.start()
        assert lead.answer(await_request(lead, newest_request(ops, job))).status_code in ACCEPTED_STATUSES
        calling.join(180)
        assert not answers[0].is_error, answers[0]
        assert "waiting for people's approval" in str(heard[0][2])


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic x"}])
def test_nobody_gets_in_without_the_jobs_token(broker_job: Puppet, given: dict[str, str]) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    answer = httpx.post(f"{broker_job.env['JUSTENOUGH_BROKER_URL']}/mcp", json=body, headers={**HEADERS, **given}, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "send `Authorization: Bearer $JUSTENOUGH_BROKER_TOKEN`"


async def test_a_call_does_not_decide_about_all_other_tools_as_well() -> None:
    called, meta = [], {"protocolVersion": "2026-07-28", "clientInfo": {"name": "x", "version": "1"}, "clientCapabilities": {}}

    async def call(name: str, *_: Any, **__: Any) -> ToolAnswer:
        called.append(name)
        return ToolAnswer("found")

    async def offered_tools() -> list[Any]:
        called.append("all tools")
        return []

    manager = build_manager(cast("ToolGateway", SimpleNamespace(call=call, offered_tools=offered_tools)))
    params = {"name": "find-order", "arguments": {"x": 1}, "_meta": {f"io.modelcontextprotocol/{name}": meta[name] for name in meta}}
    headers = {**HEADERS, "Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "find-order"}
    async with manager.run(), httpx.AsyncClient(transport=httpx.ASGITransport(manager.handle_request), base_url="http://broker") as web:
        answer = await web.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers=headers)
    assert answer.json()["result"]["content"][0]["text"] == "found"
    assert called == ["find-order"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_text_of_an_unexpected_error_reaches_neither_the_client_nor_the_log(
    mode: ConnectMode, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("t0p")

    with capture_logs() as logged:
        async with Client(build_server(cast("ToolGateway", SimpleNamespace(call=fail))), mode=mode) as mcp:
            with pytest.raises(MCPError, match=r"^unexpected error; the worker's log has its type$"):
                await mcp.call_tool("find-order", {})
    assert [(one["event"], one["kind"]) for one in logged] == [("the tool gateway failed unexpectedly", "RuntimeError")]
    assert "t0p" not in f"{logged} {caplog.text}"


def test_a_body_that_is_too_large_is_refused(broker_job: Puppet) -> None:
    assert broker_job.call("POST", "/mcp", raw="x" * 200_000, **HEADERS).status == 413


@pytest.mark.parametrize(
    "params, says",
    [
        ({"name": "find-order", "inputResponses": {"x": {}}}, "inputResponses: this server never asks for input"),
        ({"name": "find-order", "_meta": {"x": [0] * 1_000}}, "params: more than 1,000 values besides a call's arguments"),
        ([[0] * 1_000], "params: more than 1,000 values besides a call's arguments"),
        ({"name": "find-order", "arguments": {"order_id": 7, "x": [0] * 1_000}}, "unknown: x"),
        ({"name": "x", "arguments": {}, "inputResponses": {}}, "there is no tool"),
    ],
)
def test_a_request_that_would_take_long_to_validate_is_refused(broker_job: Puppet, params: Any, says: str) -> None:
    sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    assert says in broker_job.call("POST", "/mcp", sent, **HEADERS).body


def test_an_approved_call_of_a_client_that_left_is_made_only_for_the_next_identical_call(ops: Human, lead: Human, shop: Shop) -> None:
    given = {"order_id": tenant_order(shop), "amount": 4, "reason": "asked, and gone"}
    with launch_puppet(ops) as job:
        asyncio.run(_abandon_call(job, given))
        waiting = await_request(lead, newest_request(ops, job))
        pending = [entry["data"]["outcome"] for entry in _calls_in_ledger(ops, job, 1)]
        assert pending == ["pending"]
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        until(lambda: ops.job(job.job)["requests"][-1]["state"] == "approved", "the request is approved")
        assert ops.job(job.job)["credentials"] == []
        text, failed = call_tool(job, "refund-order", **given)
        assert not failed, text
        assert [entry["data"]["request"] for entry in _calls_in_ledger(ops, job, 2)] == [waiting["id"]] * 2
        assert len(ops.job(job.job)["requests"]) == 1


def test_a_call_that_its_client_cancelled_is_made_only_for_the_next_identical_call(ops: Human, lead: Human, shop: Shop) -> None:
    given = {"order_id": tenant_order(shop), "amount": 5, "reason": "asked, and cancelled"}

    async def cancel_and_stay(job: Puppet) -> None:
        """Cancel by a notification, as the protocol's versions with a handshake do: the call's own connection stays open."""
        async with connect_client(job, mode="legacy") as mcp:
            with pytest.raises(MCPError, match="timed out"):
                await mcp.call_tool("refund-order", given, progress_callback=_ignore_progress, read_timeout_seconds=2)
            await asyncio.to_thread(_calls_in_ledger, ops, job, 1)
            waiting = await asyncio.to_thread(await_request, lead, newest_request(ops, job))
            assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
            await asyncio.to_thread(until, lambda: ops.job(job.job)["requests"][-1]["state"] == "approved", "the request is approved")

    with launch_puppet(ops) as job:
        asyncio.run(cancel_and_stay(job))
        assert ops.job(job.job)["credentials"] == []
        text, failed = call_tool(job, "refund-order", **given)
        assert not failed, text
        assert [entry["data"]["outcome"] for entry in _calls_in_ledger(ops, job, 2)] == ["pending", "done"]


async def _ignore_progress(progress: float, total: float | None, message: str | None) -> None:
    pass


async def _abandon_call(job: Puppet, arguments: dict[str, Any]) -> None:
    """Call, and go away as soon as there is something to wait for."""
    heard = asyncio.Event()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.set()

    async with connect_client(job) as mcp:
        calling = asyncio.create_task(mcp.call_tool("refund-order", arguments, progress_callback=progress))
        await heard.wait()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


def _calls_in_ledger(ops: Human, job: Puppet, least: int) -> list[dict[str, Any]]:
    """The calls that the ledger has, once there are so many."""

    def found() -> list[dict[str, Any]]:
        return [entry for entry in ops.ledger(job.job) if entry["type"] == "tool.called"]

    until(lambda: len(found()) >= least, f"{least} calls are recorded")
    return found()
