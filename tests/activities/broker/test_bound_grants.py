"""People approve access through tools, within bounds that they set: calls within the bounds need no other approval, and calls beyond them
are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from justenough.domain.jobs.tool_bounds import Bounds
from tests.activities.broker.remote_job import Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.activities.broker.test_tool_bounds import access_item
from tests.activities.broker.test_tool_gateway import call_tool, mcp_result, newest_request, rows, tenant_order
from tests.attacks.intruder import Intruder, json_payload
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers

REQUESTED_TOOLS = {"refund-order": {"calls": 3, "arguments": {"amount": {"maximum": 100}}}}
"""As they are recorded."""
SPEC_TOOLS = {"refund-order": {**REQUESTED_TOOLS["refund-order"], "other_arguments": "any"}}


def bounds(**tools: dict[str, Any]) -> dict[str, Bounds]:
    return {name.replace("_", "-"): Bounds.model_validate(said) for name, said in tools.items()}


@contextmanager
def start_bound_job(ops: Human, lead: Human, **answer_fields: Any) -> Iterator[tuple[Puppet, dict[str, Any]]]:
    """A job whose access through tools somebody has approved at its start, saying this; and the request as it was shown."""
    shown: list[dict[str, Any]] = []
    before = {one["id"] for one in bound_requests(ops)}

    def approves() -> None:
        (new,) = until(lambda: [one for one in bound_requests(ops) if one["id"] not in before], "the job asks people")
        shown.append(await_request(lead, new["id"]))
        assert lead.answer(shown[0], **answer_fields).status_code in ACCEPTED_STATUSES

    approving = threading.Thread(target=approves)
    approving.start()
    with launch_puppet(ops, access_item("refunds-db", "write", SPEC_TOOLS) | {"at": "start"}, name="bound") as job:
        approving.join(180)
        yield job, shown[0]


def bound_requests(ops: Human) -> list[dict[str, Any]]:
    items = ops.api.get("requests", params={"state": "pending"}).raise_for_status().json()["items"]
    return [one for one in items if one["job_name"] == "bound"]


def refund(job: Puppet, order: int, amount: float) -> tuple[str, bool]:
    return call_tool(job, "refund-order", order_id=order, amount=amount, reason="bound grants")


def test_calls_within_the_approved_bounds_need_no_further_approval_and_calls_beyond_them_are_refused(
    ops: Human, lead: Human, shop: Shop
) -> None:
    order = tenant_order(shop)
    amounts = "SELECT amount::float FROM refunds WHERE reason = 'bound grants'"
    before = rows(shop, amounts)
    narrower = bounds(refund_order={"arguments": {"amount": {"maximum": 50}, "order_id": {"one_of": [order]}}})
    with start_bound_job(ops, lead, tools=narrower) as (job, shown):
        assert (shown["tools"], shown["call"]) == (REQUESTED_TOOLS, None)
        assert ops.job(job.job)["credentials"] == []
        text, failed = refund(job, order, 60)
        assert failed
        assert "amount: must be a number of at most 50" in text
        assert "order_id: must be one of the 1 values that the approval lists" in refund(job, order + 1, 1)[0]
        for amount in (10, 20, 30):
            text, failed = refund(job, order, amount)
            assert not failed, text
        text, failed = refund(job, order, 5)
        assert failed
        assert "the approval allows 3 calls of it, and this limit is reached" in text
        seen = ops.job(job.job)
        (request,) = seen["requests"]
        assert {one["request_id"] for one in seen["credentials"]} == {request["id"]}
        assert len(seen["credentials"]) == 3
        granted = {"refund-order": {"calls": 3, "arguments": {"amount": {"maximum": 50}, "order_id": {"one_of": [order]}}}}
        assert (request["state"], request["tools"], request["granted_tools"]) == ("approved", REQUESTED_TOOLS, granted)
        (answer,) = request["approvals"]
        assert answer["tools"] == {"refund-order": {"arguments": {"amount": {"maximum": 50}, "order_id": {"one_of": [order]}}}}
        (decided,) = entries(ops, job.job, "approval.decided")
        assert decided["signed"]["statement"]["tools"] == answer["tools"]
        assert decided["granted_tools"] == granted
        assert is_bypass_closed(job)
    assert sorted(rows(shop, amounts)) == sorted([*before, (10.0,), (20.0,), (30.0,)])
    assert ops.until(job.job)["revocation"]["state"] == "confirmed"


def test_tool_access_that_policy_allows_is_granted_at_once_and_issues_no_credential_by_itself(ops: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    with launch_puppet(ops, access_item("orders-db", "read", {"find-order": {"calls": 2}})) as job:
        assert not call_tool(job, "find-order", order_id=order)[1]
        granted = [job.request_access("orders-db", through="tools") for _ in range(2)]
        assert [(one.status, one.json["tools"]) for one in granted] == [(200, {"find-order": {"calls": 2, "arguments": {}}})] * 2
        assert len(ops.job(job.job)["credentials"]) == 1
        offered = {(one["resource"], one["action"]): one["tools"] for one in job.call("GET", "/v1/catalog").json["items"]}
        assert (offered["orders-db", "read"], offered["refunds-db", "write"]) == ({"find-order": {"calls": 2, "arguments": {}}}, None)
        assert not call_tool(job, "find-order", order_id=order)[1]
        assert "the order allows 2 calls of it, and this limit is reached" in call_tool(job, "find-order", order_id=order)[0]
    seen = ops.job(job.job)
    assert (len(seen["credentials"]), {one["state"] for one in seen["requests"]}) == (2, {"allowed"})


def is_bypass_closed(job: Puppet) -> bool:
    """Whether the credential itself is refused, because no bound would apply to it."""
    around = job.request_access("refunds-db", "write")
    return around.status == 403 and "only through tools" in around.body


def test_an_approver_can_set_bounds_on_the_tool_access_that_a_running_job_requests(ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    with launch_puppet(ops, access_item("refunds-db", "write", SPEC_TOOLS)) as job:
        assert job.request_access("orders-db", through="tools").status == 422
        first = job.request_access("refunds-db", "write", through="tools")
        assert first.status == 202
        waiting = await_request(lead, first.json["request_id"])
        assert (waiting["tools"], waiting["call"]) == (REQUESTED_TOOLS, None)
        assert job.request_access("refunds-db", "write", through="tools").json["request_id"] == waiting["id"]
        assert lead.answer(waiting, tools=bounds(refund_order={"calls": 1, "arguments": {}})).status_code in ACCEPTED_STATUSES
        granted = job.request_access("refunds-db", "write", through="tools", wait=30)
        assert (granted.status, granted.json["request_id"]) == (200, waiting["id"])
        assert granted.json["tools"] == {"refund-order": {"calls": 1, "arguments": {"amount": {"maximum": 100}}}}
        text, failed = refund(job, order, 99)
        assert not failed, text
        text, failed = refund(job, order, 99)
        assert failed
        assert "the approval allows 1 call of it, and this limit is reached" in text
        assert len(ops.job(job.job)["requests"]) == 1


def test_a_call_after_the_approval_was_withdrawn_waits_for_approval_again(ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    with start_bound_job(ops, lead) as (job, shown):
        text, failed = refund(job, order, 1)
        assert not failed, text
        assert lead.answer(shown, "withdraw").status_code in ACCEPTED_STATUSES
        until(lambda: ops.job(job.job)["requests"][0]["state"] == "withdrawn", "the approval is taken back")
        given = {"order_id": order, "amount": 2, "reason": "bound grants, again"}
        calling = threading.Thread(target=lambda: call_tool(job, "refund-order", **given))
        calling.start()
        second = await_request(lead, newest_request(ops, job, after=1))
        assert (second["id"] != shown["id"], second["call"]["arguments"]) == (True, given)
        assert lead.answer(second, "deny").status_code in ACCEPTED_STATUSES
        calling.join(180)
    assert rows(shop, "SELECT count(*) FROM refunds WHERE reason = 'bound grants, again'") == [(0,)]


def test_an_approver_can_bound_only_requested_tools_and_must_leave_at_least_one_possible_call(ops: Human, lead: Human) -> None:
    refusals = {
        "it sets bounds on find-order, which was not requested; requested: refund-order": bounds(find_order={}),
        "no call of refund-order satisfies both its bounds and the requested ones": bounds(
            refund_order={"arguments": {"amount": {"minimum": 200}}}
        ),
    }
    with launch_puppet(ops, access_item("refunds-db", "write", SPEC_TOOLS)) as job:
        waiting = await_request(lead, job.request_access("refunds-db", "write", through="tools").json["request_id"])
        for why, tools in refusals.items():
            refused = lead.answer(waiting, tools=tools)
            assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "statement.tools")
            assert why in refused.json()["errors"][0]["message"]
            assert ops.job(job.job)["requests"][0]["state"] == "pending"
        denied = lead.answer(waiting, "deny", tools=bounds(refund_order={}))
        assert "a decision to deny allows nothing, so it cannot set tool bounds" in denied.json()["errors"][0]["message"]


def test_a_single_call_is_approved_with_exactly_its_arguments_and_takes_no_bounds(ops: Human, lead: Human, shop: Shop) -> None:
    given = {"order_id": tenant_order(shop), "amount": 3, "reason": "one call"}
    with launch_puppet(ops) as job:
        calling = threading.Thread(target=lambda: call_tool(job, "refund-order", **given))
        calling.start()
        waiting = await_request(lead, newest_request(ops, job))
        refused = lead.answer(waiting, tools=bounds(refund_order={"calls": 1}))
        assert refused.status_code == 422
        assert "a single call is approved with exactly its arguments" in refused.json()["errors"][0]["message"]
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        calling.join(180)


def test_a_running_child_gets_no_more_access_than_its_parent_job_has(ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    reads = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "a test", "at": "request"}
    with (
        launch_puppet(ops, reads, access_item("refunds-db", "write", SPEC_TOOLS)) as parent,
        launch_puppet(ops, parent=parent.job) as child,
    ):
        longer = child.request_access("orders-db", ttl="6m")
        assert (longer.status, "longer than the parent job's 5m" in longer.body) == (403, True)
        assert child.request_access("orders-db").status == 200
        offered = {(one["resource"], one["action"]): one["outcome"] for one in child.call("GET", "/v1/catalog").json["items"]}
        assert (offered["orders-db", "read"], offered["customers-db", "read"]) == ("allowed", "denied")
        names = {one["name"] for one in mcp_result(child, "tools/list")["tools"]}
        assert {"find-order", "refund-order"} <= names
        other = child.request_access("customers-db")
        assert (other.status, "the parent job has no access to customers-db" in other.body) == (403, True)
        around = child.request_access("refunds-db", "write")
        assert (around.status, "only through tools: refund-order" in around.body) == (403, True)
        refused = [one["asked"] for one in entries(ops, child.job, "access.refused")]
        assert refused == ["read on orders-db", "read on customers-db", "write on refunds-db"]
        text, failed = refund(child, order, 101)
        assert failed
        assert "amount: must be a number of at most 100" in text
        calling = threading.Thread(target=lambda: refund(child, order, 100))
        calling.start()
        waiting = await_request(lead, newest_request(ops, child))
        assert waiting["call"]["within"] == REQUESTED_TOOLS["refund-order"]
        assert lead.answer(waiting, "deny").status_code in ACCEPTED_STATUSES
        calling.join(180)


def test_a_child_is_not_issued_access_that_its_parent_lost_while_the_request_was_pending(ops: Human, lead: Human, shop: Shop) -> None:
    writes = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "a test", "at": "request"}
    with launch_puppet(ops, writes) as parent, launch_puppet(ops, parent=parent.job) as child:
        given = await_request(lead, parent.request_access("refunds-db", "write", ttl="5m").json["request_id"])
        assert lead.answer(given).status_code in ACCEPTED_STATUSES
        waiting = await_request(lead, child.request_access("refunds-db", "write", ttl="5m").json["request_id"])
        assert lead.answer(given, "withdraw").status_code in ACCEPTED_STATUSES
        told = lead.answer(waiting)
        assert (told.status_code, "the parent job has no access to refunds-db" in told.text) == (403, True)
        # If the approval bypasses the console, the worker counts it, because the session checks again before it issues.
        with Intruder.break_in(shop.stack) as intruder:
            intruder.send_signal(child.job, "decide", json_payload(lead.decision(waiting)))
        refused = child.request_access("refunds-db", "write", ttl="5m", wait=30)
        assert (refused.status, "the parent job has no access to refunds-db" in refused.body) == (403, True)
        assert ops.job(child.job)["credentials"] == []
