"""A running job calls tools: the calls are made with a login that is revoked right after, and no secret comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest

from tests.activities.broker.remote_job import Answer, Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.support.wait import until
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers
SHOPS = {"find-order", "list-tickets", "refund-order", "find-customer", "export-customers"}
"""The shop's tools."""
HEADERS: dict[str, Any] = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def mcp_messages(job: Puppet, method: str, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What comes back of one MCP request, notifications too."""
    answer = job.call("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}, **HEADERS)
    assert answer.status == 200, answer.body
    return messages(answer)


def messages(answer: Answer) -> list[dict[str, Any]]:
    if answer.headers["content-type"].startswith("application/json"):
        return [answer.json]
    return [json.loads(line.removeprefix("data: ")) for line in answer.body.splitlines() if line.startswith("data: {")]


def mcp_result(job: Puppet, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = mcp_messages(job, method, params)[-1]["result"]
    return found


def call_tool(job: Puppet, name: str, **arguments: Any) -> tuple[str, bool]:
    """The text that a call returns, and whether it is an error."""
    found = mcp_result(job, "tools/call", {"name": name, "arguments": arguments})
    return found["content"][0]["text"], bool(found.get("isError"))


def until_only(job: Puppet, names: set[str]) -> None:
    """Return once a job may use these and no other: what an earlier test had offered is there until the catalog is read anew."""
    until(lambda: names == {tool["name"] for tool in mcp_result(job, "tools/list")["tools"]}, "nothing else can be called")


def until_offered(job: Puppet, *names: str) -> None:
    """Return once a job may use these: the catalog is read anew now and then."""
    until(lambda: set(names) <= {tool["name"] for tool in mcp_result(job, "tools/list")["tools"]}, f"{', '.join(names)} can be called")


def rows(shop: Shop, statement: str, *values: Any) -> list[Any]:
    with psycopg.connect(shop.dsn) as connection:
        return connection.execute(statement.encode(), values).fetchall()


def tenant_order(shop: Shop, tenant: str = "acme") -> int:
    """An order of a tenant's."""
    return int(rows(shop, "SELECT min(id) FROM orders WHERE tenant = %s", tenant)[0][0])


@pytest.fixture(scope="module")
def agent(ops: Human) -> Iterator[Puppet]:
    """A job that every test here may use which needs no people."""
    with launch_puppet(ops) as job:
        yield job


def test_a_job_is_offered_every_tool_that_it_may_use_now_or_after_an_approval(agent: Puppet) -> None:
    until_only(agent, SHOPS)
    tools = {tool["name"]: tool for tool in mcp_result(agent, "tools/list")["tools"]}
    assert tools["find-order"]["annotations"]["readOnlyHint"] is True
    assert tools["find-order"]["inputSchema"]["additionalProperties"] is False
    assert "Needs people's approval (tier 1)" in tools["refund-order"]["description"]


def test_a_call_returns_an_answer_and_its_login_is_dead_right_after(agent: Puppet, ops: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    text, failed = call_tool(agent, "find-order", order_id=order)
    assert not failed, text
    assert json.loads(text)["rows"][0]["id"] == order
    assert shop.users_of(agent.job) == []
    told = entries(ops, agent.job, "tool.called")[-1]
    assert (told["tool"], told["outcome"], told["action"]) == ("find-order", "done", "orders-db:read")
    assert (told["answer_bytes"], told["duration_ms"] > 0) == (len(text.encode()), True)
    used = entries(ops, agent.job, "credential.used")[-1]
    assert used == {"credential": told["credential"], "what": "tool find-order"}
    seen = next(one for one in ops.job(agent.job)["credentials"] if one["id"] == told["credential"])
    assert seen["state"] == "confirmed"


def test_each_tool_call_has_its_own_credential_under_one_request(agent: Puppet, ops: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    for _ in range(3):
        assert not call_tool(agent, "find-order", order_id=order)[1]
    last = entries(ops, agent.job, "tool.called")[-3:]
    assert len({one["credential"] for one in last}) == 3
    assert len({one["request"] for one in last}) == 1


def test_a_tool_call_returns_no_rows_of_another_tenant(agent: Puppet, shop: Shop) -> None:
    text, failed = call_tool(agent, "find-order", order_id=tenant_order(shop, "globex"))
    assert (json.loads(text), failed) == ({"rows": []}, False)


@pytest.mark.parametrize(
    "name, arguments, says",
    [
        ("find-order", {"order_id": "1 OR 1=1"}, "order_id: must have type integer"),
        ("find-order", {"order": 1}, "unknown: order; did you mean 'order_id'?"),
        ("find-order", {}, "required: order_id"),
        ("find-orders", {}, "there is no tool 'find-orders' for this job; did you mean 'find-order'?"),
        ("list-tickets", {"status": "open' OR '1'='1"}, "status: must have enum"),
    ],
)
def test_an_invalid_tool_call_is_refused_in_words_and_recorded(
    agent: Puppet, ops: Human, name: str, arguments: dict[str, Any], says: str
) -> None:
    text, failed = call_tool(agent, name, **arguments)
    assert failed
    assert says in text
    refused = entries(ops, agent.job, "access.refused")[-1]
    assert (refused["asked"], says in refused["why"]) == (f"tool {name}", True)


def test_malformed_notifications_leave_no_lines_in_the_workers_log(agent: Puppet, whole: Stack) -> None:
    dropped = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": []}}
    assert agent.call("POST", "/mcp", dropped, **HEADERS).status == 202
    assert mcp_result(agent, "tools/list")["tools"]
    assert "malformed" not in StackPaths(whole.home).log("worker").read_text()


def test_the_catalog_is_an_mcp_resource(agent: Puppet) -> None:
    assert [one["uri"] for one in mcp_result(agent, "resources/list")["resources"]] == ["justenough://catalog"]
    told = json.loads(mcp_result(agent, "resources/read", {"uri": "justenough://catalog"})["contents"][0]["text"])
    assert {one["name"]: (one["outcome"], one["tier"]) for one in told["tools"]}["refund-order"] == ("needs_approval", 1)
    assert {"resource": "orders-db", "action": "read"}.items() <= next(
        one for one in told["access"] if (one["resource"], one["action"]) == ("orders-db", "read")
    ).items()
    unknown = mcp_messages(agent, "resources/read", {"uri": "justenough://ledger"})[-1]["error"]
    assert unknown["message"] == "unknown resource; the only one is justenough://catalog"


def test_a_refund_waits_for_approvers_who_see_its_arguments_and_is_made_once_as_approved(ops: Human, lead: Human, shop: Shop) -> None:
    order, reason = tenant_order(shop), "It broke'); DROP TABLE refunds; --"
    given = {"order_id": order, "amount": 12.5, "reason": reason}
    with launch_puppet(ops) as job:
        answers: list[list[dict[str, Any]]] = []
        params = {"name": "refund-order", "arguments": given, "_meta": {"progressToken": "p"}}
        calling = threading.Thread(target=lambda: answers.append(mcp_messages(job, "tools/call", params)))
        calling.start()
        waiting = await_request(lead, newest_request(ops, job))
        assert waiting["call"] == {"tool": "refund-order", "arguments": given}
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        calling.join(180)
        *told, last = answers[0]
        assert not last["result"].get("isError"), last
        assert [one["method"] for one in told] == ["notifications/progress"] * len(told)
        assert told
        assert waiting["id"] in told[0]["params"]["message"]
        assert rows(shop, "SELECT order_id, amount::float, reason FROM refunds WHERE reason = %s", reason) == [(order, 12.5, reason)]
        assert shop.users_of(job.job) == []
        # The same call again, and one with another amount, are each another request: nobody approved those.
        for amount in (12.5, 12.6):
            calling = threading.Thread(
                target=lambda amount=amount: answers.append(
                    mcp_messages(job, "tools/call", {**params, "arguments": {**given, "amount": amount}})
                )
            )
            calling.start()
            another = await_request(lead, newest_request(ops, job, after=len(answers)))
            assert another["call"]["arguments"]["amount"] == amount
            assert lead.answer(another, "deny").status_code in ACCEPTED_STATUSES
            calling.join(180)
            text = answers[-1][-1]["result"]["content"][0]["text"]
            assert text.startswith("Denied: write on refunds-db: the request is denied. Do not retry it with different wording. ")
            assert text.endswith(
                "You may use without approval: find-order, list-tickets. With people's approval: find-customer, export-customers."
            )
        assert [one["outcome"] for one in entries(ops, job.job, "tool.called")] == ["done", "denied", "denied"]
        assert len(rows(shop, "SELECT 1 FROM refunds WHERE reason = %s", reason)) == 1


def test_every_identical_call_that_waits_gets_the_denial_and_none_asks_people_again(ops: Human, lead: Human, shop: Shop) -> None:
    given = {"order_id": tenant_order(shop), "amount": 5, "reason": "asked twice at once"}
    params = {"name": "refund-order", "arguments": given, "_meta": {"progressToken": "p"}}
    with launch_puppet(ops) as job, ExitStack() as open_calls:
        headers = {**HEADERS, "Authorization": f"Bearer {job.env['JUSTENOUGH_BROKER_TOKEN']}"}
        calls = []
        for _ in range(2):
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            http = open_calls.enter_context(httpx.Client(trust_env=False, timeout=180, headers=headers))
            answer = open_calls.enter_context(http.stream("POST", f"{job.env['JUSTENOUGH_BROKER_URL']}/mcp", json=body))
            lines = (line for line in answer.iter_lines() if line.startswith("data: {"))
            # The first progress report says that the call waits for people.
            assert "notifications/progress" in next(lines)
            calls.append(lines)
        request = newest_request(ops, job)
        assert lead.answer(await_request(lead, request), "deny").status_code in ACCEPTED_STATUSES
        for lines in calls:
            result = json.loads([*lines][-1].removeprefix("data: "))["result"]
            assert result["content"][0]["text"].startswith("Denied: write on refunds-db: the request is denied.")
        assert [one["id"] for one in ops.job(job.job)["requests"]] == [request]


def newest_request(ops: Human, job: Puppet, *, after: int = 0) -> str:
    """The newest request of a job for refunds, once there are more than so many."""

    def newer() -> list[str]:
        return [one["id"] for one in ops.job(job.job)["requests"] if one["resource"] == "refunds-db"][after:]

    return until(newer, "the job asks for refunds")[-1]
