"""Policy: the tier that a request needs, and the reasons for a decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.policy.cedar_request import Clock
from justenough.domain.policy.engine import PolicySet
from tests.support.domain_samples import SCHEMA, access_context, job, policies, resource

ALWAYS = '@id("always") permit(principal, action, resource);'


def decide(text: str, *, top: int = 3, action: Action = Action.READ, held: HeldAccess | None = None, reason: str = "why") -> Decision:
    context = access_context(held=held or HeldAccess(), reason=reason)
    return policies(text).decide(job(), "orders-db", resource(), action, context=context, top=top)


def policy_text(text: str, name: str = "some", effect: str = "permit") -> str:
    return f'@id("{name}") {effect}(principal, action, resource) when {{ {text} }};'


def test_a_request_that_a_policy_permits_without_a_condition_is_allowed_and_names_that_policy() -> None:
    decision = decide(ALWAYS)
    assert (decision.outcome, decision.tier, decision.policies) == ("allowed", 0, ("always",))


def test_a_request_that_no_policy_permits_is_denied_by_default() -> None:
    decision = decide(policy_text("resource.external"))
    assert (decision.outcome, decision.policies) == ("denied", ("default-deny",))


def test_a_forbid_beats_any_permit_and_is_named() -> None:
    decision = decide(ALWAYS + policy_text('principal.environment == "prod"', "never-prod", "forbid"))
    assert (decision.outcome, decision.policies) == ("denied", ("never-prod",))


@pytest.mark.parametrize(
    "condition, top, expected",
    [
        ("context.approved_tier >= 0", 3, 0),
        ("context.approved_tier >= 1", 3, 1),
        ("context.approved_tier > 1", 3, 2),
        ("3 <= context.approved_tier", 3, 3),
        ("!(context.approved_tier < 2)", 3, 2),
        ("context.approved_tier >= 4", 3, None),
        # Permitted at 1 and at 3, not at 2: tier 3 is needed, as 2 above 1 does not allow.
        ("context.approved_tier == 1 || context.approved_tier == 3", 3, 3),
        ("context.approved_tier == 0", 3, None),
        ("context.approved_tier != 3", 3, None),
        # Only the tiers that have approvers count.
        ("context.approved_tier >= 2", 1, None),
        ("context.approved_tier != 3", 2, 0),
        ("context.approved_tier == 1", 1, 1),
        ("context.approved_tier >= 1", 0, None),
        ("if context.approved_tier > 0 then true else resource.external", 3, 1),
    ],
)
def test_the_needed_tier_is_the_lowest_from_which_every_tier_allows(condition: str, top: int, expected: int | None) -> None:
    decision = decide(policy_text(condition), top=top)
    if expected is None:
        assert decision.outcome == "denied"
    else:
        assert (decision.outcome, decision.tier) == ("allowed" if expected == 0 else "needs_approval", expected)


def test_a_forbid_that_holds_below_the_needed_tier_is_named_beside_the_permits() -> None:
    decision = decide(ALWAYS + policy_text("context.approved_tier < 2", "ask-security", "forbid"))
    assert (decision.outcome, decision.tier, decision.policies) == ("needs_approval", 2, ("always", "ask-security"))


@pytest.mark.parametrize(
    "condition",
    [
        '{job: principal}.job.environment == "prod"',
        "{job: principal}.job has environment",
        "{all: {job: principal}}.all.job has agent.owner",
        '{it: resource}.it.environment == "prod"',
        "(if context.break_glass then {job: principal} else {job: principal}).job has environment",
    ],
)
def test_a_policy_reads_an_attribute_of_a_job_or_resource_also_through_a_record(condition: str) -> None:
    assert decide(policy_text(condition)).outcome == "allowed"
    forbidden = decide(ALWAYS + policy_text(condition, "never", "forbid"))
    assert (forbidden.outcome, forbidden.policies, forbidden.errors) == ("denied", ("never",), ())


def test_policies_that_hold_only_below_the_needed_tier_are_not_named() -> None:
    text = (
        policy_text("context.approved_tier >= 2", "two")
        + policy_text("context.approved_tier >= 3", "three")
        + policy_text("resource.external", "no")
    )
    assert decide(text).policies == ("two",)


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_a_policy_with_an_error_denies_whatever_the_others_permit(effect: str) -> None:
    decision = decide(ALWAYS + policy_text("9223372036854775807 + context.ttl_seconds > 0", "overflows", effect))
    assert (decision.outcome, decision.policies) == ("denied", ("overflows",))
    assert "overflow" in decision.errors[0]
    assert "overflows" in decision.errors[0]


def test_an_error_at_a_tier_other_than_the_needed_one_denies_too() -> None:
    overflow = "context.approved_tier == 3 && 9223372036854775807 + context.ttl_seconds > 0"
    assert decide(ALWAYS + policy_text(overflow, "overflows")).errors


def test_an_error_denies_if_it_precedes_the_condition_that_makes_its_policy_moot() -> None:
    overflow = "9223372036854775807 + context.ttl_seconds > 0"
    moot = f'@id("overflows") permit(principal, action, resource) when {{ {overflow} }} when {{ context.approved_tier < 0 }};'
    assert decide(ALWAYS + moot).errors
    assert decide(ALWAYS + policy_text(f"{overflow} && context.approved_tier < 0", "overflows")).errors
    # The other way round Cedar never gets to the error, so there is none.
    assert decide(ALWAYS + policy_text(f"context.approved_tier < 0 && {overflow}", "moot")).outcome == "allowed"


def test_a_missing_attribute_of_an_entity_denies() -> None:
    decision = decide(ALWAYS + policy_text('Job::"other".environment == "prod" && resource.external', "looks-elsewhere"))
    assert decision.outcome == "denied"
    assert decision.errors


def test_an_empty_set_denies_and_says_that_there_are_no_policies() -> None:
    decision = PolicySet.none().decide(job(), "orders-db", resource(), Action.READ, context=access_context())
    assert (decision.outcome, decision.policies) == ("denied", ("no-policies",))
    assert decision.policy_digest.startswith("sha256:")


def test_each_attribute_of_the_job_reaches_the_policies() -> None:
    conditions = [
        'principal.name == "refund-triage"',
        'principal.task == "Refund a ticket"',
        'principal.agent.name == "refund-agent"',
        'principal.agent.version == "1.4"',
        'principal.agent == {name: "refund-agent", version: "1.4", model: "scripted", owner: ""}',
        'principal.environment == "prod"',
        'principal.requester == "entity-ops"',
        'principal.requester_groups.contains("ops")',
        'principal.labels.contains("team=support")',
        'principal.data_scope == ["tenant=acme"]',
        'principal == Job::"j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa"',
        "principal is Job",
        '(if context.break_glass then principal else principal).name == "refund-triage"',
    ]
    asks = job(
        agent={"name": "refund-agent", "version": "1.4", "model": "scripted"}, labels={"team": "support"}, data_scope={"tenant": "acme"}
    )
    for condition in conditions:
        decision = policies(policy_text(condition)).decide(asks, "orders-db", resource(), Action.READ, context=access_context())
        assert decision.outcome == "allowed", condition


def test_a_plain_program_has_an_agent_without_a_name() -> None:
    assert decide(policy_text('principal.agent.name == "" && principal has agent')).outcome == "allowed"


@pytest.mark.parametrize(
    "condition",
    [
        'resource == Resource::"orders-db"',
        'resource.environment == "prod"',
        "resource.sensitivity == 1",
        "!resource.external",
        'resource.owner == "support-leads"',
        "resource has owner",
        'action == Action::"read"',
        'context.phase == "start"',
        "context.ttl_seconds == 600",
        'context.reason like "*ord\\*r*" || context.reason == "why"',
        'context.held.contains("orders-db:read")',
        "context.touched == 2",
        'context.touched_resources.contains("orders-db")',
        "!context.break_glass",
        "context has approved_tier && context has touched",
    ],
)
def test_each_attribute_of_the_request_reaches_the_policies(condition: str) -> None:
    held = HeldAccess(held=frozenset({"orders-db:read"}), touched=Sensitivity.CONFIDENTIAL, touched_resources=frozenset({"orders-db"}))
    assert decide(policy_text(condition), held=held).outcome == "allowed"


def test_held_access_counts_as_touched_even_if_the_caller_does_not_say_so() -> None:
    held = HeldAccess(held=frozenset({"orders-db:read"}))
    assert decide(policy_text('context.touched_resources.contains("orders-db")'), held=held).outcome == "allowed"


@pytest.mark.parametrize("text", ['"});permit(', "\\", "\n\r\t", '{"__entity": {"type": "Job", "id": "x"}}', "{{tier}}", "𝄞é" * 100])
def test_text_that_others_wrote_cannot_change_a_decision(text: str) -> None:
    decision = decide(policy_text('context.reason == "something else"'), reason=text)
    assert (decision.outcome, decision.errors) == ("denied", ())


def test_text_that_cedar_cannot_read_denies_whatever_is_permitted() -> None:
    plain = job(labels={"team": "support"})
    asks = replace(plain, spec=plain.spec.model_copy(update={"labels": {"team": "\ud800"}}))
    reads = ALWAYS + policy_text('context.reason == "x" || principal.labels.contains("x")', "reads-it", "forbid")
    for requester, reason in ((asks, "why"), (plain, "\ud800")):
        decision = policies(reads).decide(requester, "orders-db", resource(), Action.READ, context=access_context(reason=reason))
        assert (decision.outcome, len(decision.errors)) == ("denied", 1)


def test_action_groups_of_the_schema_hold_for_their_members() -> None:
    schema = SCHEMA.replace("action read, write, admin appliesTo", "action changing;\naction write, admin in [changing] appliesTo") + (
        "action read appliesTo { principal: [Job], resource: [Resource], context: Access };"
    )
    loaded = PolicySet.load({"a.cedar": '@id("a") permit(principal, action in Action::"changing", resource);'}, schema)
    outcomes = {action: loaded.decide(job(), "x", resource(), action, context=access_context()).outcome for action in Action}
    assert outcomes == {Action.READ: "denied", Action.WRITE: "allowed", Action.ADMIN: "allowed"}


def test_a_change_of_the_resource_changes_the_decision() -> None:
    loaded = policies(policy_text("!resource.external"))
    outcomes = [
        loaded.decide(job(), "x", resource(external=out), Action.READ, context=access_context()).outcome for out in (False, True, False)
    ]
    assert outcomes == ["allowed", "denied", "allowed"]


def test_the_digest_changes_with_every_text_and_name_and_with_nothing_else() -> None:
    a, b = '@id("a") permit(principal, action, resource);', '@id("b") permit(principal, action, resource);'
    base = PolicySet.load({"a.cedar": a, "b.cedar": b}, SCHEMA)
    assert PolicySet.load({"b.cedar": b, "a.cedar": a}, SCHEMA, external=["x"]).digest == base.digest
    others = [
        ({"a.cedar": a + " ", "b.cedar": b}, SCHEMA),
        ({"a.cedar": a, "c.cedar": b}, SCHEMA),
        ({"a.cedar": a, "b.cedar": b}, SCHEMA + "\n"),
    ]
    digests = {PolicySet.load(files, schema).digest for files, schema in others}
    assert len(digests | {base.digest}) == 4
    assert base.decide(job(), "x", resource(), Action.READ, context=access_context()).policy_digest == base.digest


def test_decisions_always_name_policies_in_the_same_order() -> None:
    files = {
        name: f'@id("{name}-2") permit(principal, action, resource);@id("{name}-1") permit(principal, action, resource);' for name in "ba"
    }
    loaded = PolicySet.load(files, SCHEMA)
    assert loaded.ids == ("a-2", "a-1", "b-2", "b-1")
    for _ in range(5):
        assert loaded.decide(job(), "x", resource(), Action.READ, context=access_context()).policies == loaded.ids


def test_the_clock_is_read_in_utc_whatever_the_zone_of_the_moment() -> None:
    late = datetime(2026, 2, 1, 1, 30, tzinfo=timezone(timedelta(hours=9)))
    assert Clock.at(late) == Clock(hour=16, weekday=6)
    monday = policies('@id("m") permit(principal, action, resource) when { context.weekday == 1 && context.hour == 8 };')
    for hour, weekday, outcome in ((8, 1, "allowed"), (9, 1, "denied"), (8, 2, "denied")):
        context = access_context(clock=Clock(hour, weekday))
        assert monday.decide(job(), "orders-db", resource(), Action.READ, context=context).outcome == outcome


def test_held_access_is_listed_by_action_and_issued_credentials_are_counted_even_after_their_end() -> None:
    held = (
        HeldAccess()
        .with_issued("orders-db", Action.WRITE, Sensitivity.INTERNAL)
        .with_issued("orders-db", Action.READ, Sensitivity.INTERNAL)
    )
    held = held.with_ended("orders-db", Action.WRITE)
    two = 'context.issued_count == 2 && context.held_actions.contains("read") && !context.held_actions.contains("write")'
    loaded = policies(f'@id("two") permit(principal, action, resource) when {{ {two} }};')
    assert loaded.decide(job(), "orders-db", resource(), Action.READ, context=access_context(held=held)).outcome == "allowed"
