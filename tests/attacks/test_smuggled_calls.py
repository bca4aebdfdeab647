"""A job with one approved call makes no other: neither a call that Python considers equal, nor one hidden among many rejected calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from activities.broker.tools.gateway import MAX_UNDONE_RECORDED
from tests.activities.broker.bad_upstream import Upstream, serve_upstream
from tests.activities.broker.catalog_edits import offer_tools
from tests.activities.broker.remote_job import Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.activities.broker.test_tool_gateway import call_tool, newest_request, until_offered
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers
ASKS = """
import json, os, socket, threading
gone = socket.socket(socket.AF_UNIX)
gone.connect(os.environ["JUSTENOUGH_BROKER"])
body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL})
head = "POST /mcp HTTP/1.1\\r\\nHost: broker\\r\\nAccept: application/json, text/event-stream\\r\\nContent-Type: application/json\\r\\n"
gone.sendall((head + "Content-Length: " + str(len(body)) + "\\r\\n\\r\\n" + body).encode())
"""
"""Sends a call without waiting for its response."""
ASKS_AND_GOES = ASKS.replace("CALL", '{"name": "set-flag", "arguments": {"flag": 1}}') + "threading.Timer(5, gone.close).start()\n"


@pytest.fixture
def target() -> Iterator[Upstream]:
    with serve_upstream() as listening:
        yield listening


def flag_tool(url: str) -> dict[str, Any]:
    """A tool that accepts any value and needs approval."""
    http = {"method": "POST", "url": f"{url}/echo", "allow_private": True, "json": {"flag": "{flag}"}}
    kept = {"type": "object", "properties": {"flag": {}}, "required": ["flag"]}
    return {"set-flag": {"description": "Set it", "uses": {"resource": "refunds-db", "action": "write"}, "input": kept, "http": http}}


def test_a_call_approved_with_1_is_not_made_with_true(ops: Human, lead: Human, shop: Shop, target: Upstream) -> None:
    with offer_tools(shop, flag_tool(target.url)):
        with launch_puppet(ops) as watching:
            until_offered(watching, "set-flag")
        with launch_puppet(ops, before=ASKS_AND_GOES) as job:
            waiting = await_request(lead, newest_request(ops, job))
            until(lambda: entries(ops, job.job, "tool.called") != [], "whoever asked has gone")
            assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
            calling = threading.Thread(target=lambda: call_tool(job, "set-flag", flag=True))
            calling.start()
            until(lambda: target.reached.is_set() or len(refund_requests(ops, job)) > 1, "it is asked for, or was made")
            assert not target.seen
            assert lead.answer(await_request(lead, refund_requests(ops, job)[-1]), "deny").status_code in ACCEPTED_STATUSES
            calling.join(180)
            assert not target.seen


def refund_requests(ops: Human, job: Puppet) -> list[str]:
    return [one["id"] for one in ops.job(job.job)["requests"] if one["resource"] == "refunds-db"]


def test_rejected_calls_do_not_fill_the_ledger(ops: Human) -> None:
    bound = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "look", "at": "request"}
    with launch_puppet(ops, {**bound, "tools": {"find-order": {"arguments": {"order_id": {"maximum": 1}}}}}) as job:
        for _ in range(MAX_UNDONE_RECORDED + 20):
            text, failed = call_tool(job, "find-order", order_id=2)
            assert failed, text
            assert "must be a number of at most 1" in text
        assert len(entries(ops, job.job, "tool.called")) == MAX_UNDONE_RECORDED
        assert not call_tool(job, "find-order", order_id=1)[1]
        assert entries(ops, job.job, "tool.called")[-1]["outcome"] == "done"


def test_a_job_cannot_release_the_credential_that_a_tool_uses_for_it(ops: Human, shop: Shop, target: Upstream) -> None:
    http = {"url": f"{target.url}/slow", "headers": {"X-Login": "{username} {password}"}, "allow_private": True, "timeout": "50s"}
    slow = {"slow": {"description": "Wait", "uses": {"resource": "orders-db", "action": "read"}, "http": http}}
    with offer_tools(shop, slow):
        with launch_puppet(ops) as watching:
            until_offered(watching, "slow")
        with launch_puppet(ops, before=ASKS.replace("CALL", '{"name": "slow"}')) as job:
            assert target.reached.wait(180)
            login = Login(*target.seen[-1]["headers"]["x-login"].split())
            (used,) = ops.job(job.job)["credentials"]
            refused = job.call("POST", f"/v1/access/{used['id']}/release")
            assert (refused.status, "a gateway uses it and releases it itself" in refused.body) == (404, True)
            assert shop.can_log_in(login)
    assert not shop.can_log_in(login)
