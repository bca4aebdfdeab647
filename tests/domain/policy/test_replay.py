"""Replay: the recorded facts lead to the same decisions; other policies are reported as looser or tighter, and so is what older entries
lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.domain.core.ids import request_id
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.states import BEYOND_ORDER, Action, Sensitivity
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK, AccessContext, Clock, DecisionFacts
from justenough.domain.policy.dry_run import PolicyEvaluator, dry_run_spec
from justenough.domain.policy.replay import REPLAY_EVENTS, PolicyReplay, ReplayedDecision, ReplayReport
from tests.domain.policy.test_partial_evaluation import texts
from tests.support.domain_samples import JOB, NOW
from tests.support.policy_samples import CATALOG, job_facts, replay_entries, rules, shop_rules

READ = '@id("r") permit(principal, action == Action::"read", resource);'
OPS = '@id("ops") permit(principal, action, resource) when { principal.requester_groups.contains("ops") };'
WHOLE = ["orders-db:read", "refunds-db:write", "customers-db:read", "export-api:write"]
EMPTY: dict[str, Any] = dict.fromkeys(EventType.JOB_SUBMITTED.fields, None)


def job_events(evaluator: PolicyEvaluator, *items: str, job: str = JOB, ttl: str = "5m") -> Iterator[Event]:
    """Yield the events of a job whose requests these rules decide at its start."""
    asked = job_facts(*items, ttl=ttl)
    raw: dict[str, Any] = {
        "name": asked.spec.name,
        "task": asked.spec.task,
        "environment": asked.spec.environment,
        "run": {"command": ["true"]},
        "data_scope": dict(asked.spec.data_scope),
    }
    raw["access"] = [
        {"resource": one.resource, "action": one.action.value, "ttl": one.ttl, "reason": one.reason} for one in asked.spec.access
    ]
    yield build_event(
        EventType.JOB_SUBMITTED, job, at=NOW, **{**EMPTY, "spec": raw, "params": {}, "name": asked.spec.name, "requester": asked.requester}
    )
    for step in dry_run_spec(evaluator, asked, clock=DEFAULT_CLOCK):
        request, access = request_id(job, step.number), step.access
        resource = CATALOG.resources[access.resource]
        said: dict[str, Any] = {"resource": access.resource, "action": access.action.value, "ttl": access.ttl, "reason": access.reason}
        more: dict[str, Any] = {
            "number": step.number,
            "reason_by": "order",
            "signed_reason": access.reason,
            "optional": False,
            "title": "",
            "sensitivity": resource.sensitivity.name.lower(),
            "revocable": "now",
        }
        yield build_event(EventType.ACCESS_REQUESTED, job, at=NOW, about=request, request=request, **said, **more)
        facts = DecisionFacts.of(asked, access.resource, resource, access.action, step.context).model_dump(mode="json")
        decision = step.decision.model_dump(mode="json")
        told = {"request": request, "phase": "start", "digest": "", "facts": facts, **decision}
        yield build_event(EventType.ACCESS_DECIDED, job, at=NOW, about=f"{request}/start", **told)


def entries(facts: Iterator[Event], *, old: bool = False) -> list[dict[str, Any]]:
    """As the API tells them; `old`: as they were before facts were recorded."""
    found = []
    for position, one in enumerate(facts, start=1):
        data = {name: value for name, value in one.data.items() if not (old and name == "facts")}
        found.append({"position": position, "job": one.job, "type": one.type.value, "at": one.at.isoformat(), "data": data})
    return found


def counts(result: ReplayReport) -> tuple[int, int, int, int]:
    return result.same, result.looser, result.tighter, result.unknown


@pytest.mark.parametrize("old", [False, True])
def test_the_same_policies_decide_everything_as_they_did(old: bool) -> None:
    found = replay_entries(entries(job_events(shop_rules(), *WHOLE), old=old), shop_rules())

    assert counts(found) == (4, 0, 0, 0)
    assert (found.decisions, found.requests, found.items) == (4, 4, ())


def test_a_replay_reports_looser_and_tighter_decisions_with_both_outcomes() -> None:
    now = rules(READ + '@id("w") permit(principal, action == Action::"write", resource) when { context.approved_tier >= 3 };')
    found = replay_entries(entries(job_events(shop_rules(), *WHOLE)), now)

    assert counts(found) == (1, 2, 1, 0)
    verdicts = {(one.resource, one.action): (one.verdict, one.then.outcome, one.now and one.now.outcome) for one in found.items}
    assert verdicts["refunds-db", "write"] == ("tighter", "needs_approval", "needs_approval")
    assert verdicts["customers-db", "read"] == ("looser", "needs_approval", "allowed")
    assert verdicts["export-api", "write"] == ("looser", "denied", "needs_approval")


def test_each_replayed_decision_uses_the_access_that_was_held_then() -> None:
    # The export came after the restricted read; that the read would now be denied does not undo that it was issued.
    now = rules(
        '@id("e") permit(principal, action == Action::"write", resource); @id("x") forbid(principal, action, resource) when { context.touched >= 3 };'
    )
    found = replay_entries(entries(job_events(shop_rules(), "customers-db:read", "export-api:write")), now)

    assert [(one.resource, one.verdict) for one in found.items] == [("customers-db", "tighter")]
    assert found.same == 1


@pytest.mark.parametrize("places", [(0, 1), (1, 0)])
def test_access_beyond_the_order_is_not_replayed_as_named_access(places: tuple[int, int]) -> None:
    # Two jobs with the same request and the same facts; only one order names the access.
    evaluator = rules(READ)
    recorded = [entries(job_events(evaluator, "orders-db:read", job=job)) for job in (JOB, f"{JOB[:-1]}x")]
    recorded[1][-1]["data"]["facts"]["beyond"] = "ask"
    recorded[1][-1]["data"] |= {"outcome": "needs_approval", "tier": 1, "policies": ["r", BEYOND_ORDER]}

    found = replay_entries([entry for place in places for entry in recorded[place]], evaluator)

    assert counts(found) == (2, 0, 0, 0)


@pytest.mark.parametrize("old, expected", [(False, (1, 0, 0, 0)), (True, (0, 0, 0, 1))])
def test_an_entry_without_groups_is_unknown_only_if_a_policy_reads_them(old: bool, expected: tuple[int, int, int, int]) -> None:
    recorded = entries(job_events(rules(OPS), "orders-db:read"), old=old)

    assert counts(replay_entries(recorded, rules(OPS))) == expected
    assert counts(replay_entries(recorded, rules(READ))) == (1, 0, 0, 0)
    if old:
        assert replay_entries(recorded, rules(OPS)).lacking == {"requester_groups": 1}


def test_the_hour_and_the_count_are_derived_for_entries_that_do_not_record_them() -> None:
    # The third request of a job whose order came on a Saturday at half past nine, UTC.
    third = '@id("p") permit(principal, action, resource) when { context.issued_count == 2 && context.hour == 9 && context.weekday == 6 };'
    recorded = entries(job_events(shop_rules(), "orders-db:read", "refunds-db:read", "helpdesk-api:read"))
    for entry in recorded:
        for name in ("issued_count", "hour", "weekday"):
            entry["data"].get("facts", {}).pop(name, None)

    found = replay_entries(recorded, rules(third))

    assert (found.unknown, [one.resource for one in found.items if one.now and one.now.outcome == "denied"]) == (
        0,
        ["orders-db", "refunds-db"],
    )
    assert found.same == 1


def test_a_replay_reports_what_changed_in_the_catalog() -> None:
    recorded = entries(job_events(shop_rules(), "orders-db:read", "refunds-db:write"))
    changed = {"orders-db": CATALOG.resources["orders-db"].model_copy(update={"sensitivity": 3, "owner": "security"})}
    now = PolicyEvaluator(shop_rules().policies, CATALOG.model_copy(update={"resources": changed}), 3)
    restricted, gone = replay_entries(recorded, now).items

    assert (restricted.verdict, restricted.moved) == ("tighter", ("sensitivity", "owner"))
    assert (gone.verdict, gone.moved, gone.now and gone.now.outcome) == ("tighter", ("resource",), "denied")


def test_an_action_that_is_no_longer_offered_would_be_denied() -> None:
    orders = CATALOG.resources["orders-db"]
    fewer = orders.model_copy(update={"actions": {action: one for action, one in orders.actions.items() if action != "read"}})
    now = PolicyEvaluator(shop_rules().policies, CATALOG.model_copy(update={"resources": {"orders-db": fewer}}), 3)
    (gone,) = replay_entries(entries(job_events(shop_rules(), "orders-db:read")), now).items

    assert (gone.verdict, gone.moved) == ("tighter", ("action",))


def test_fewer_tiers_deny_what_needed_a_higher_one() -> None:
    text = '@id("three") permit(principal, action, resource) when { context.approved_tier >= 3 };'
    (found,) = replay_entries(entries(job_events(rules(text), "orders-db:read")), rules(text, top=2)).items

    assert found.verdict == "tighter"


def test_an_issue_and_a_renewal_are_decided_again_with_what_was_held_then() -> None:
    recorded = entries(job_events(shop_rules(), "customers-db:read", "orders-db:read"), old=True)
    asked = {one["data"]["resource"]: one["data"]["request"] for one in recorded if one["type"] == "access.requested"}
    issued = {"credential": "c-1", "request": asked["customers-db"], "resource": "customers-db", "action": "read"}
    decided = {**recorded[-1]["data"], "phase": "issue"}
    recorded += [{**recorded[0], "type": "credential.issued", "data": issued}, {**recorded[0], "type": "access.decided", "data": decided}]
    text = READ + '@id("h") forbid(principal, action, resource) when { context.held.contains("customers-db:read") };'

    assert [(one.phase, one.verdict) for one in replay_entries(recorded, rules(text)).items if one.resource == "orders-db"] == [
        ("start", "tighter"),
        ("issue", "tighter"),
    ]
    # Once its credential has ended, it is not held.
    recorded.insert(-1, {**recorded[0], "type": "credential.confirmed", "data": {"credential": "c-1", "how": ""}})
    assert [one.phase for one in replay_entries(recorded, rules(text)).items if one.resource == "orders-db"] == ["start"]


def test_similar_jobs_are_distinguished_if_a_policy_names_one() -> None:
    other = "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qb"
    text = READ + f'@id("not-that") forbid(principal == Job::"{other}", action, resource);'
    recorded = entries(iter([*job_events(rules(READ), "orders-db:read"), *job_events(rules(READ), "orders-db:read", job=other)]))

    assert [(one.job, one.verdict) for one in replay_entries(recorded, rules(text)).items] == [(other, "tighter")]


def test_a_decision_whose_order_was_not_read_is_unknown_until_it_is() -> None:
    recorded = entries(job_events(shop_rules(), "orders-db:read"))
    again = PolicyReplay(shop_rules())
    unknown = again.replay_entry(recorded[-1])

    assert isinstance(unknown, ReplayedDecision)
    assert (unknown.verdict, unknown.lacks) == ("unknown", ("order",))
    assert not again.knows(JOB)
    again.learn(JOB, recorded[:-1])
    known = again.replay_entry(recorded[-1])
    assert known is not None
    assert (again.knows(JOB), known.verdict) == (True, "same")


def test_a_decision_without_facts_whose_request_was_not_read_is_unknown() -> None:
    recorded = entries(job_events(shop_rules(), "orders-db:read"))
    again = PolicyReplay(shop_rules())
    again.learn(JOB, [one for one in recorded[:-1] if one["type"] != "access.requested"])
    del recorded[-1]["data"]["facts"]
    unknown = again.replay_entry(recorded[-1])
    assert isinstance(unknown, ReplayedDecision)
    assert (unknown.verdict, unknown.lacks) == ("unknown", ("request",))


def test_a_spec_that_newer_rules_refuse_is_unknown() -> None:
    recorded = entries(job_events(shop_rules(), "orders-db:read"))
    recorded[0]["data"]["spec"] = {"name": "NOT A NAME"}

    assert replay_entries(recorded, shop_rules()).lacking == {"order": 1}


def test_a_replay_forgets_a_job_at_its_end_and_keeps_nothing_of_later_entries() -> None:
    recorded = entries(job_events(shop_rules(), "orders-db:read"))
    again = PolicyReplay(shop_rules())
    again.learn(JOB, recorded)
    for kind, data in (("job.ended", {}), ("credential.confirmed", {"credential": "c-1"}), ("job.refused", {})):
        assert again.replay_entry({**recorded[0], "type": kind, "data": data}) is None

    assert not again.knows(JOB)
    assert again._jobs == {}


def test_a_released_value_is_no_longer_held_even_if_it_stays_valid() -> None:
    recorded = entries(job_events(shop_rules(), "customers-db:read", "orders-db:read"), old=True)
    asked = {one["data"]["resource"]: one["data"]["request"] for one in recorded if one["type"] == "access.requested"}
    issued = {"credential": "c-1", "request": asked["customers-db"], "resource": "customers-db", "action": "read"}
    left = {"credential": "c-1", "until": None, "why": ""}
    decided = {**recorded[-1]["data"], "phase": "issue"}
    recorded += [{**recorded[0], "type": "credential.issued", "data": issued}, {**recorded[0], "type": "credential.residual", "data": left}]
    recorded += [{**recorded[0], "type": "access.decided", "data": decided}]
    text = READ + '@id("h") forbid(principal, action, resource) when { context.held.contains("customers-db:read") };'
    verdicts = [one.verdict for one in replay_entries(recorded, rules(text)).items if (one.resource, one.phase) == ("orders-db", "issue")]
    assert verdicts == []


def test_every_type_that_a_replay_reads_is_one_of_the_ledgers() -> None:
    assert set(REPLAY_EVENTS) <= set(EventType)


def test_the_recorded_facts_contain_every_circumstance_of_a_request() -> None:
    held = HeldAccess(held=frozenset({"a:read"}), touched=Sensitivity.RESTRICTED, touched_resources=frozenset({"a"}), issued_count=2)
    call: dict[str, Any] = {"tool": "pay", "arguments": frozenset({"to=a"}), "numbers": frozenset({"amount=1"})}
    context = AccessContext("runtime", 300, "why", Clock(3, 7), held=held, break_glass=True, **call, beyond="policy")
    default = AccessContext("start", 1, "", DEFAULT_CLOCK)
    assert [item.name for item in fields(context) if getattr(context, item.name) == getattr(default, item.name)] == []
    assert [name for name in HeldAccess.model_fields if getattr(held, name) == getattr(HeldAccess(), name)] == []

    facts = DecisionFacts.of(job_facts(), "orders-db", CATALOG.resources["orders-db"], Action.READ, context)
    assert DecisionFacts.model_validate_json(facts.model_dump_json()).to_context("why") == context


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=texts,
    after=texts,
    wanted=st.lists(st.sampled_from([*WHOLE, "orders-db:write", "orders-db:admin"]), min_size=1, max_size=4),
    ttl=st.sampled_from(["1m", "5m", "10m"]),
)
def test_the_recorded_facts_yield_the_same_decision_again_and_another_set_yields_its_own(
    before: str, after: str, wanted: list[str], ttl: str
) -> None:
    then, now = rules(before), rules(after)
    recorded = entries(job_events(then, *wanted, ttl=ttl))
    assert replay_entries(recorded, then).same == len(wanted)

    items = {}
    asked = job_facts(*wanted, ttl=ttl)
    for one in replay_entries(recorded, now).items:
        items[one.request] = one.now
    for step in dry_run_spec(then, asked, clock=DEFAULT_CLOCK):
        decision = now.decide(asked, step.access, step.context)
        told = items.get(request_id(JOB, step.number))
        assert (told or step.decision).outcome == decision.outcome
        assert told is None or (told.tier, told.policies) == (decision.tier, decision.policies)
