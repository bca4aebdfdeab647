"""A child job inherits the data that its ancestors have read: none of them may send it out of the organisation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.new_people import log_in_newcomer
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.policy_samples import replay_entries, shop_rules
from tests.support.shop import Shop, access, spec
from tests.support.wait import until
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

SECRET = access("customers-db")
EXPORT = access("export-api", "write", deliver={})
FOR_CHILDREN = tuple(
    access(resource, action, at="request", deliver={})
    for resource, action in (("orders-db", "read"), ("refunds-db", "write"), ("export-api", "write"))
)
"""Access that a job has only for its children: no child may have more access than its parent."""


@pytest.fixture(scope="module")
def reader(ops: Human, security: Human) -> str:
    """Return an ended job that read restricted data."""
    job = ops.launch(spec("true", SECRET, *FOR_CHILDREN, name="reader"))
    (request,) = ops.until(job, "awaiting_approval")["requests"]
    security.answer(request).raise_for_status()
    assert ops.until(job)["state"] == "succeeded"
    return job


def denial_facts(ops: Human, auditor: Human, job: str) -> dict[str, Any]:
    """Return the facts of a job's only decision, a denial, after checking that the policies decide the same again."""
    seen = ops.until(job)
    assert (seen["state"], seen["credentials"]) == ("denied", [])
    entries = auditor.ledger(job)
    (decided,) = [entry["data"] for entry in entries if entry["type"] == "access.decided"]
    assert (decided["outcome"], decided["policies"]) == ("denied", ["no-export-after-restricted"])
    report = replay_entries(entries, shop_rules())
    assert (report.decisions, report.same) == (1, 1)
    facts: dict[str, Any] = decided["facts"]
    return facts


def test_a_child_of_a_job_that_read_restricted_data_gets_no_external_access_even_if_it_read_nothing(
    ops: Human, auditor: Human, reader: str
) -> None:
    child = ops.launch(spec("true", EXPORT), parent=reader)
    facts = denial_facts(ops, auditor, child)
    assert (facts["touched"], facts["touched_resources"], facts["held"], facts["issued_count"]) == (3, ["customers-db"], [], 0)
    (first, *_) = auditor.ledger(child)
    assert (first["data"]["parent"], first["data"]["order"]["statement"]["parent"]) == (reader, reader)
    # The same job, launched by nobody's job, may ask.
    alone = ops.launch(spec("true", EXPORT))
    assert ops.until(alone, "awaiting_approval")["parent"] is None
    assert ops.api.post(f"jobs/{alone}/cancel").status_code == 202


def test_a_grandchild_inherits_from_the_whole_chain_and_its_approver_sees_the_chain(
    ops: Human, lead: Human, auditor: Human, reader: str
) -> None:
    between = ops.launch(spec("true", access(), *FOR_CHILDREN, name="between"), parent=reader)
    assert ops.until(between)["state"] == "succeeded"
    grandchild = ops.launch(spec("true", EXPORT), parent=between)
    assert denial_facts(ops, auditor, grandchild)["touched_resources"] == ["customers-db", "orders-db"]

    writing = ops.launch(spec("true", access("refunds-db", "write")), parent=between)
    (request,) = ops.until(writing, "awaiting_approval")["requests"]
    shown = lead.api.get(f"requests/{request['id']}").raise_for_status().json()
    assert [(one["job"], one["name"], one["requester"], one["touched"], one["sensitivity"]) for one in shown["chain"]] == [
        (between, "between", "ops", ["orders-db"], "confidential"),
        (reader, "reader", "ops", ["customers-db"], "restricted"),
    ]
    assert (shown["parent"], ops.job(writing)["chain"]) == (between, shown["chain"])
    children = ops.api.get("jobs", params={"parent": between}).raise_for_status().json()["items"]
    assert {item["id"] for item in children} == {grandchild, writing}
    assert lead.answer(request).status_code in ACCEPTED_STATUSES
    assert ops.until(writing)["state"] == "succeeded"


def test_a_launcher_cannot_approve_a_job_that_their_own_job_launched_as_another_login(
    whole: Stack, shop: Shop, oncall: Human, security: Human, chief: Human
) -> None:
    with (
        log_in_newcomer(whole, shop, "owner", "ops", "support-leads", "break-glass") as owner,
        log_in_newcomer(whole, shop, "robot", "ops", "security") as robot,
    ):
        parent = owner.launch(spec("true", *FOR_CHILDREN, name="theirs"))
        child = robot.launch(spec("true", access("refunds-db", "write")), parent=parent)
        (request,) = robot.until(child, "awaiting_approval")["requests"]
        why = "people cannot decide on a job that they triggered, or on a descendant of a job that they launched"
        for answer in (owner.answer(request), owner.answer(request, "break_glass"), owner.api.post(f"requests/{request['id']}/claim")):
            assert (answer.status_code, answer.json()["detail"]) == (403, why)
        assert request["id"] not in {one["id"] for one in owner.api.get("requests", params={"mine": True}).json()["items"]}
        oncall.decide(request, "break_glass")
        assert owner.review(request).status_code == 403
        # If two people review at the same moment, one review counts, and the other person is told.
        with ThreadPoolExecutor() as both:
            assert sorted(both.map(lambda human: human.review(request).status_code, (security, chief))) == [200, 409]
        assert robot.until(child)["state"] == "succeeded"


def test_a_child_cannot_have_more_access_than_its_parent_and_every_excess_is_reported_by_its_path(ops: Human) -> None:
    tools = {"refund-order": {"calls": 3, "arguments": {"amount": {"maximum": 100}}, "other_arguments": "any"}}
    bound = access("refunds-db", "write", at="request", deliver={}, tools=tools)
    parent = ops.launch(spec("true", access(ttl="4m"), bound, name="narrow", timeout="1m"))
    assert ops.until(parent)["state"] == "succeeded"
    wider = {"refund-order": {"calls": 4, "arguments": {"amount": {"maximum": 100.5}}, "other_arguments": "any"}}
    child = spec(
        "true",
        access(ttl="5m"),
        access("orders-db", "write", deliver={}),
        access("customers-db", deliver={}),
        {**bound, "tools": wider},
        access("refunds-db", "write", at="request", deliver={}),
        data_scope={"tenant": "globex"},
    )
    order = ops.order(child, parent=parent)
    answer = ops.api.post("jobs", json=order)
    assert answer.status_code == 422
    why = "the parent job"
    expected = {
        "data_scope.tenant": f"{why} is bound to 'acme'",
        "run.timeout": f"longer than {why}'s 1m",
        "access[0].ttl": f"longer than {why}'s 4m",
        "access[1].action": f"{why} has read on orders-db, but not write",
        "access[2].resource": f"{why} has no access to customers-db",
        "access[3].tools.refund-order.calls": f"at most 3: {why} has a bound here",
        "access[3].tools.refund-order.arguments.amount": f"allows more: {why} has a bound here",
        "access[4].tools": f"{why} has access only through tools: refund-order",
    }
    assert {one["path"]: one["message"] for one in answer.json()["errors"]} == expected
    dry = ops.api.post("jobs", json={"spec": child, "dry_run": True, "parent": parent})
    assert {one["path"] for one in dry.json()["errors"]} == set(expected)
    same = spec("true", access(ttl="4m"), {**bound, "tools": {"refund-order": {**tools["refund-order"], "calls": 1}}}, timeout="1m")
    assert ops.until(ops.launch(same, parent=parent))["state"] == "succeeded"


def test_children_are_limited_to_the_access_that_approvers_granted_their_parent(ops: Human, lead: Human) -> None:
    parent = ops.launch(spec("sleep 60", access("orders-db", "write")))
    (request,) = ops.until(parent, "awaiting_approval")["requests"]
    assert lead.answer(request, ttl=120, action="read").status_code in ACCEPTED_STATUSES
    ops.until(parent, "running")
    assert launch_errors(ops, spec("true", access("orders-db", "write", ttl="2m")), parent) == ["access[0].action"]
    assert launch_errors(ops, spec("true", access("orders-db", ttl="3m")), parent) == ["access[0].ttl"]
    assert ops.until(ops.launch(spec("true", access(ttl="2m")), parent=parent))["state"] == "succeeded"
    assert lead.answer(request, "withdraw").status_code in ACCEPTED_STATUSES
    until(lambda: ops.job(parent)["requests"][0]["state"] == "withdrawn", "its approval is taken back")
    assert launch_errors(ops, spec("true", access(ttl="2m")), parent) == ["access[0].resource"]
    assert ops.api.post(f"jobs/{parent}/kill").status_code == 202


def launch_errors(ops: Human, job_spec: dict[str, Any], parent: str) -> list[str]:
    """Return the paths of the problems if this spec is launched by a job."""
    answer = ops.api.post("jobs", json=ops.order(job_spec, parent=parent))
    assert answer.status_code == 422, answer.text
    return [one["path"] for one in answer.json()["errors"]]
