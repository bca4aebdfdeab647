"""Explaining a decision: which policies decided, where they are, and what would change it. Each change is verified by making it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK, AccessContext
from justenough.domain.policy.dry_run import PolicyEvaluator, dry_run_spec
from justenough.domain.policy.engine import PolicySet
from justenough.domain.policy.explain import Counterfactual, RequestExplanation, build_plain_spec, explain_spec
from tests.domain.policy.test_partial_evaluation import texts
from tests.support.domain_samples import SCHEMA, access
from tests.support.policy_samples import CATALOG, TIERS, job_facts, rules, shop_rules

WRITES = """
@id("short") permit(principal, action == Action::"write", resource) when { context.approved_tier >= 1 && context.ttl_seconds <= 300 };
@id("long") permit(principal, action == Action::"write", resource) when { context.approved_tier >= 2 };
"""


def explain_requests(evaluator: PolicyEvaluator, *items: str, **changes: object) -> tuple[RequestExplanation, ...]:
    return explain_spec(evaluator, TIERS, job_facts(*items, **changes), clock=DEFAULT_CLOCK).requests  # type: ignore[arg-type] # a spec's parts, as they come


def changes(request: RequestExplanation) -> dict[str, str]:
    return {f"{one.fact} {one.value}": f"{one.outcome} {one.tier}" for one in request.changes}


def test_the_spec_for_one_access_has_a_data_scope_that_its_action_accepts() -> None:
    action = CATALOG.resources["orders-db"].actions[Action.READ].model_copy(update={"data_scope": ("study", "ward")})
    resource = CATALOG.resources["orders-db"].model_copy(update={"actions": {Action.READ: action}})
    scopes = ({"department": "lab"}, {"ward": "k1", "study": "atlas"})
    catalog = CATALOG.model_copy(update={"resources": {**CATALOG.resources, "orders-db": resource}, "scopes": scopes})

    assert build_plain_spec(catalog, "orders-db", "read")["data_scope"] == scopes[1]
    assert build_plain_spec(catalog, "refunds-db", "write")["data_scope"] == {}


def test_each_deciding_policy_is_reported_with_its_effect_and_its_place() -> None:
    (request,) = explain_requests(shop_rules(), "customers-db:read")

    assert [(one.id, one.effect, one.place) for one in request.policies] == [
        ("read-restricted-at-tier-2", "permit", "policies/reads.cedar:11:1")
    ]
    assert [(tier.tier, tier.name, tier.allows) for tier in request.tiers] == [
        (0, "", False),
        (1, "owner", False),
        (2, "security", True),
        (3, "chief", True),
    ]


def test_an_explanation_says_that_a_request_without_a_permit_is_denied_by_default() -> None:
    (request,) = explain_requests(rules(WRITES), "orders-db:read")

    assert (request.outcome, [(one.id, one.place) for one in request.policies]) == ("denied", [("default-deny", "")])


def test_a_forbid_that_denies_is_named_with_the_decision_without_it() -> None:
    text = WRITES + '@id("not-orders") forbid(principal, action, resource == Resource::"orders-db");'
    (request,) = explain_requests(rules(text), "orders-db:write")

    assert changes(request)["policy without not-orders"] == "needs_approval 1"


def test_two_forbids_that_each_deny_are_reported_together() -> None:
    text = WRITES + '@id("a") forbid(principal, action, resource); @id("b") forbid(principal, action, resource);'
    (request,) = explain_requests(rules(text), "orders-db:write")

    assert changes(request) == {"policy without a and b": "needs_approval 1"}


def test_the_nearest_ttl_that_makes_a_difference_is_reported() -> None:
    (short,) = explain_requests(rules(WRITES), "orders-db:write", ttl="2m")
    (long,) = explain_requests(rules(WRITES), "orders-db:write", ttl="10m")

    assert (short.tier, changes(short)) == (1, {"ttl 301s": "needs_approval 2"})
    assert (long.tier, changes(long)) == (2, {"ttl 5m": "needs_approval 1"})


def test_a_ttl_over_the_catalogs_maximum_is_not_offered() -> None:
    text = '@id("long-only") permit(principal, action, resource) when { context.ttl_seconds > 7200 };'
    (request,) = explain_requests(rules(text), "orders-db:write")

    assert (request.outcome, request.changes) == ("denied", ())


def test_an_explanation_says_how_reordering_requests_for_restricted_data_and_exports_changes_them() -> None:
    first, second = explain_requests(shop_rules(), "customers-db:read", "export-api:write")
    glass = {"break_glass declared": "denied 0"}
    assert changes(first) == {"order after request 2 (export-api write)": "denied 0", **glass}
    assert changes(second) == {
        "policy without no-export-after-restricted": "needs_approval 2",
        "order before request 1 (customers-db read)": "needs_approval 2",
        "touched confidential": "needs_approval 2",
    }

    first, second = explain_requests(shop_rules(), "export-api:write", "customers-db:read")
    assert changes(first) == {"order after request 2 (customers-db read)": "denied 0", "touched restricted": "denied 0"}
    assert changes(second)["order before request 1 (export-api write)"] == "needs_approval 2"


def test_what_a_job_requests_while_it_runs_is_decided_after_all_that_it_needs_at_its_start() -> None:
    read = access(resource="customers-db", action="read", at="request")
    first, second = explain_requests(shop_rules(), access=[read, access(resource="export-api", action="write")])
    # The same as in the other order in the spec: at its start, the job has not read anything yet.
    assert (first.outcome, second.outcome, second.tier) == ("denied", "needs_approval", 2)
    # Another order in the spec would change nothing between them.
    assert [change for change in (*changes(first), *changes(second)) if "order" in change] == []


def test_the_place_before_both_is_reported_if_either_of_two_earlier_requests_is_enough_to_deny() -> None:
    text = '@id("all") permit(principal, action, resource); @id("alone") forbid(principal, action == Action::"write", resource) when { context.touched >= 2 };'
    *_, last = explain_requests(rules(text), "orders-db:read", "refunds-db:read", "helpdesk-api:write")

    assert changes(last) == {
        "policy without alone": "allowed 0",
        "order before every other request": "allowed 0",
        "touched internal": "allowed 0",
    }


def test_an_explanation_names_another_environment_as_the_reason() -> None:
    found = explain_spec(shop_rules(), TIERS, job_facts("orders-db:read", environment="staging"), clock=DEFAULT_CLOCK)

    assert changes(found.requests[0])["environment prod"] == "allowed 0"
    assert found.problems == ("environment: orders-db is in environment 'prod', not in 'staging'",)


@pytest.mark.parametrize(
    "condition, change",
    [
        ('principal.requester_groups.contains("ops")', "requester_groups without ops"),
        ('!principal.requester_groups.contains("night")', "requester_groups with night"),
        ('!principal.labels.contains("team=support")', "labels with team=support"),
        ('["tenant=acme"].containsAny(principal.data_scope)', None),
        ('principal.data_scope.contains("tenant=acme")', "data_scope without tenant=acme"),
        ('principal.agent.name != "rogue"', "agent.name rogue"),
        ('["", "1.4"].contains(principal.agent.version) && principal.agent.version != "1.4"', "agent.version 1.4"),
        ('context.phase == "start"', "phase renewal"),
        ("context.touched < 2", "touched confidential"),
        ('!context.held.contains("refunds-db:write")', "held with refunds-db:write"),
        ("!context.break_glass", "break_glass declared"),
        ("context.hour < 18", "hour 18"),
        ("context.hour >= 8", "hour 7"),
        ("context.weekday <= 5", "weekday 6"),
        ("context.issued_count < 3", "issued_count 3"),
        ('context.reason != "no"', "reason no"),
        ('principal.requester != "e-chief"', "requester e-chief"),
        ('principal.name != "export"', "name export"),
    ],
)
def test_an_explanation_tries_every_fact_that_a_policy_compares_with_a_value(condition: str, change: str | None) -> None:
    (request,) = explain_requests(rules(f'@id("only") permit(principal, action, resource) when {{ {condition} }};'), "orders-db:read")

    assert request.outcome == "allowed"
    assert change is None or changes(request)[change] == "denied 0"


def test_a_policy_with_an_error_is_reported_with_its_error_and_no_tiers() -> None:
    text = '@id("all") permit(principal, action, resource); @id("big") forbid(principal, action, resource) when { 9223372036854775807 + context.ttl_seconds > 0 };'
    (request,) = explain_requests(rules(text), "orders-db:read")

    assert (request.outcome, [one.id for one in request.policies], request.tiers) == ("denied", ["big"], ())
    assert request.errors


ORDERLY = """
@id("read") permit(principal, action == Action::"read", resource);
@id("write") permit(principal, action == Action::"write", resource);
@id("not-after-read") forbid(principal, action == Action::"write", resource) when { context.touched >= 3 };
@id("not-after-write") forbid(principal, action == Action::"read", resource == Resource::"customers-db")
  when { context.held.contains("export-api:write") };
"""


@pytest.mark.parametrize("is_listed_first", [True, False])
def test_requests_of_the_running_job_come_after_those_of_the_start_wherever_the_spec_lists_them(is_listed_first: bool) -> None:
    asked, started = access(resource="customers-db", at="request"), access(resource="export-api", action="write")
    job = job_facts(access=[asked, started] if is_listed_first else [started, asked])

    requests = explain_spec(rules(ORDERLY), TIERS, job, clock=DEFAULT_CLOCK).requests

    # As for the real job: when it starts, it has not read anything yet; when it wants to read, it can export.
    assert {request.resource: request.outcome for request in requests} == {"export-api": "allowed", "customers-db": "denied"}
    assert [request.number for request in requests] == [1, 2]
    # Listing them in another order would change nothing.
    assert not [change for request in requests for change in request.changes if change.fact == "order"]


def test_the_order_in_which_a_running_job_makes_its_requests_may_change_their_decisions() -> None:
    items = [
        access(resource="orders-db"),
        *(access(**one, at="request") for one in ({"resource": "customers-db"}, {"resource": "export-api", "action": "write"})),
    ]
    job = job_facts(access=items)

    _, read, write = explain_spec(rules(ORDERLY), TIERS, job, clock=DEFAULT_CLOCK).requests

    assert (read.outcome, write.outcome) == ("allowed", "denied")
    assert changes(read)["order after request 3 (export-api write)"] == "denied 0"
    assert changes(write)["order before request 2 (customers-db read)"] == "allowed 0"


def test_an_explanation_without_a_policy_set_says_that_there_are_no_policies() -> None:
    (request,) = explain_requests(PolicyEvaluator(PolicySet.none(), CATALOG), "orders-db:read")

    assert [one.id for one in request.policies] == ["no-policies"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts, wanted=st.lists(st.sampled_from(["orders-db:read", "orders-db:write", "export-api:write"]), min_size=1, max_size=3))
def test_an_explanation_matches_the_decision_and_each_explained_change_comes_true(text: str, wanted: list[str]) -> None:
    found, job = rules(text), job_facts(*wanted)
    steps = tuple(dry_run_spec(found, job, clock=DEFAULT_CLOCK))
    for step, request in zip(steps, explain_spec(found, TIERS, job, clock=DEFAULT_CLOCK).requests, strict=True):
        assert (request.outcome, request.tier) == (step.decision.outcome, step.decision.tier)
        assert [one.id for one in request.policies] == list(step.decision.policies)
        allowed = [tier.allows for tier in request.tiers]
        if request.outcome == "needs_approval":
            assert all(allowed[request.tier :])
            assert not allowed[request.tier - 1]
        for change in request.changes:
            assert (change.outcome, change.tier) != (request.outcome, request.tier)
        _check_counterfactuals(text, found, step.context, request.changes, wanted[step.number - 1])


def _check_counterfactuals(
    text: str, evaluator: PolicyEvaluator, context: AccessContext, counterfactuals: tuple[Counterfactual, ...], item: str
) -> None:
    """Take away what a change takes away, and ask again."""
    job = job_facts(item)
    for change in counterfactuals:
        if change.fact == "policy" and " and " not in change.value:
            name = change.value.removeprefix("without ")
            left = "\n".join(line for line in text.splitlines() if not line.startswith(f'@id("{name}")'))
            if left:
                again = replace(evaluator, policies=PolicySet.load({"only.cedar": left}, SCHEMA, external=evaluator.policies.external))
                decision = again.decide(job, job.spec.access[0], context)
                assert (decision.outcome, decision.tier) == (change.outcome, change.tier)
        if change.fact == "order" and change.value == "before every other request":
            decision = evaluator.decide(job, job.spec.access[0], replace(context, held=HeldAccess()))
            assert (decision.outcome, decision.tier) == (change.outcome, change.tier)
