"""A misled agent asks for what its order does not name. Policy alone would allow it; the signed order does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.activities.broker.remote_job import launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.activities.broker.test_tool_gateway import call_tool, mcp_result, rows
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop

pytestmark = pytest.mark.servers
READS: dict[str, Any] = {"resource": "refunds-db", "action": "read", "ttl": "5m", "reason": "look", "at": "request"}


def test_an_order_for_reads_gives_a_misled_agent_no_write_and_no_other_tool(ops: Human, lead: Human) -> None:
    with launch_puppet(ops, READS, beyond=None) as job:
        assert job.request_access("refunds-db").status == 200
        pending = job.request_access("scratch", "write")
        assert pending.status == 202, pending.body
        waiting = await_request(lead, pending.json["request_id"])
        assert (waiting["tier"], waiting["policies"]) == (1, ["write-at-tier-1", "write-own-space", "beyond-order"])
        text, failed = call_tool(job, "list-tickets")
        assert (failed, text.startswith("This waits for people's approval (request ")) == (True, True)
        assert ", tier 1); nothing was done. They can decide until 20" in text
        assert text.endswith(" Continue with other work. After the approval, call again with exactly the same arguments.")
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        assert job.request_access("scratch", "write", wait=30).status == 200
        facts = [entry["facts"] for entry in entries(ops, job.job, "access.decided") if entry["phase"] == "runtime"]
        assert [each.get("beyond") for each in facts] == [None, "ask", "ask"]


def test_an_order_that_refuses_what_it_does_not_name_offers_no_tool_and_asks_nobody(ops: Human) -> None:
    with launch_puppet(ops, READS, beyond="none") as job:
        assert job.request_access("refunds-db", ttl="10m").status == 403
        refused = job.request_access("scratch", "write")
        assert (refused.status, refused.json["outcome"], refused.json["policies"]) == (403, "denied", ["beyond-order"])
        assert "the signed order does not name it" in refused.json["detail"]
        assert mcp_result(job, "tools/list")["tools"] == []
        text, failed = call_tool(job, "list-tickets")
        assert (failed, "the signed order does not name it" in text) == (True, True)
        assert text.endswith("This job has no other tools: continue without them, or report what could not be done.")
        offered = {(item["resource"], item["action"]): item["outcome"] for item in job.call("GET", "/v1/catalog").json["items"]}
        assert {what for what, outcome in offered.items() if outcome != "denied"} == {("refunds-db", "read")}
        assert job.request_access("refunds-db").status == 200
        assert ops.ledger(job.job)[-1]["type"] != "approval.opened"


def test_a_child_cannot_loosen_what_its_parents_order_refuses(ops: Human) -> None:
    child = {"name": "child", "task": "t", "environment": "prod", "data_scope": {"tenant": "acme"}, "run": {"command": ["true"]}}
    with launch_puppet(ops, READS, beyond="none") as job:
        for loosened in ({}, {"beyond": "ask"}, {"beyond": "policy"}):
            answer = ops.api.post("jobs", json=ops.order({**child, **loosened, "access": []}, parent=job.job) | {"parent": job.job})
            assert answer.status_code == 422, answer.text
            assert "beyond" in {error["path"] for error in answer.json()["errors"]}


def test_an_injected_call_adds_no_argument_and_uses_up_no_other_call(ops: Human, shop: Shop) -> None:
    first, second = (int(row[0]) for row in rows(shop, "SELECT id FROM orders WHERE tenant = 'acme' ORDER BY id LIMIT 2"))
    each_once = {"find-order": {"arguments": {"order_id": {"one_of": [first, second], "calls_per_value": 1}}}}
    tickets = {"list-tickets": {"arguments": {"status": {"one_of": ["closed"]}}}}
    with launch_puppet(ops, {**READS, "resource": "orders-db", "tools": {**each_once, **tickets}}, beyond=None) as job:
        assert not call_tool(job, "find-order", order_id=first)[1]
        text, failed = call_tool(job, "find-order", order_id=first)
        assert (failed, "allows 1 call with each value" in text) == (True, True)
        text, failed = call_tool(job, "list-tickets", status="closed", limit=50)
        assert (failed, "limit: the order allows no argument except status" in text) == (True, True)
        assert not call_tool(job, "list-tickets", status="closed")[1]
        assert not call_tool(job, "find-order", order_id=second)[1]
    none = {"find-order": {"calls": 0}, "list-tickets": {}}
    with launch_puppet(ops, {**READS, "resource": "orders-db", "tools": none}) as job:
        assert "find-order" not in {tool["name"] for tool in mcp_result(job, "tools/list")["tools"]}
        assert "there is no tool 'find-order' for this job" in call_tool(job, "find-order", order_id=first)[0]
