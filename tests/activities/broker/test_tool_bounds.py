"""An order bounds what tools may be called with: whatever the agent tries, no call beyond the bounds is made, and no credential is issued
around them.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.activities.broker.remote_job import launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.activities.broker.test_tool_gateway import SHOPS, call_tool, newest_request, rows, tenant_order, until_only
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop

pytestmark = pytest.mark.servers


def access_item(resource: str, action: str, tools: dict[str, Any]) -> dict[str, Any]:
    return {"resource": resource, "action": action, "ttl": "5m", "reason": "a test", "at": "request", "tools": tools}


def test_no_tool_call_exceeds_its_bounds_and_no_credential_is_issued_around_them(ops: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    bounds = access_item("orders-db", "read", {"find-order": {"calls": 2, "arguments": {"order_id": {"one_of": [order]}}}})
    with launch_puppet(ops, bounds) as job:
        until_only(job, SHOPS - {"list-tickets"})
        text, failed = call_tool(job, "find-order", order_id=order + 1)
        assert failed
        assert "order_id: must be one of the 1 values that the order lists" in text
        assert "there is no tool 'list-tickets' for this job" in call_tool(job, "list-tickets")[0]
        around = job.request_access("orders-db")
        assert (around.status, "only through tools" in around.body) == (403, True)
        for _ in range(2):
            text, failed = call_tool(job, "find-order", order_id=order)
            assert not failed, text
            assert json.loads(text)["rows"][0]["id"] == order
        text, failed = call_tool(job, "find-order", order_id=order)
        assert failed
        assert "the order allows 2 calls of it, and this limit is reached" in text
        assert [one["outcome"] for one in entries(ops, job.job, "tool.called")] == ["denied", "done", "done", "denied"]
    assert len(ops.job(job.job)["credentials"]) == 2


def test_approvers_see_the_bounds_and_the_bounds_are_part_of_what_they_approve(ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    bounds = access_item("refunds-db", "write", {"refund-order": {"arguments": {"amount": {"maximum": 100}}, "other_arguments": "any"}})
    with launch_puppet(ops, bounds) as job:
        text, failed = call_tool(job, "refund-order", order_id=order, amount=100.5, reason="too much")
        assert failed
        assert "amount: must be a number of at most 100" in text
        assert ops.job(job.job)["requests"] == []
        answers: list[tuple[str, bool]] = []
        given: dict[str, Any] = {"order_id": order, "amount": 99, "reason": "within the bounds"}
        calling = threading.Thread(target=lambda: answers.append(call_tool(job, "refund-order", **given)))
        calling.start()
        waiting = await_request(lead, newest_request(ops, job))
        assert waiting["call"] == {"tool": "refund-order", "arguments": given, "within": {"arguments": {"amount": {"maximum": 100}}}}
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        calling.join(180)
        assert not answers[0][1], answers
    assert rows(shop, "SELECT amount::float FROM refunds WHERE reason IN ('too much', 'within the bounds')") == [(99.0,)]
