"""Correct policies that are probably mistakes: found only if that is certain."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.lint import LintFinding, LintFindingKind, lint_policies
from tests.domain.policy.test_partial_evaluation import texts
from tests.support.domain_samples import access_context, job, resource
from tests.support.policy_samples import CATALOG, rules, shop_rules

ALL = '@id("all") permit(principal, action, resource);'
ONE = CATALOG.model_copy(update={"resources": {"orders-db": CATALOG.resources["orders-db"]}})


def findings(text: str, *, top: int = 3) -> list[LintFinding]:
    return list(lint_policies(rules(text, top=top, catalog=ONE), frozenset({"ops"})))


def kinds(text: str, *, top: int = 3) -> set[tuple[str, str]]:
    return {(one.kind.value, one.where) for one in findings(text, top=top)}


def test_the_linter_finds_nothing_in_the_shops_policies() -> None:
    assert lint_policies(shop_rules(), frozenset({"ops"})) == ()


def test_the_linter_finds_nothing_in_a_policy_that_permits_everything() -> None:
    assert findings(ALL) == []


@pytest.mark.parametrize(
    "policy",
    [
        'permit(principal, action, resource == Resource::"order-db");',
        "permit(principal, action, resource) when { resource.sensitivity == 3 };",
        "forbid(principal, action, resource) when { resource.external };",
        'forbid(principal, action, resource) when { context.approved_tier >= 1 && resource.environment == "staging" };',
    ],
)
def test_a_policy_whose_conditions_nothing_of_the_catalog_meets_decides_nothing(policy: str) -> None:
    (odd,) = findings(f'{ALL}\n@id("x") {policy}')
    assert (odd.kind.value, odd.where) == ("unreachable", "policies/only.cedar:2:1")
    assert odd.message == "decides nothing: no action of the catalog meets its conditions at any tier"


def test_a_permit_of_what_is_forbidden_to_everybody_decides_nothing() -> None:
    text = '@id("no") forbid(principal, action == Action::"write", resource);\n@id("x") permit(principal, action == Action::"write", resource);'
    odd = {one.where: one for one in findings(text)}

    assert odd["policies/only.cedar:2:1"].policies == ("x", "no")
    assert odd["orders-db:write"].kind is LintFindingKind.NEVER_ALLOWED
    assert odd["orders-db:write"].policies == ("no",)
    assert odd["policies/only.cedar:2:1"].message == "decides nothing: no forbids everything it permits"
    assert odd["orders-db:write"].message == "always denied: no forbids it to everybody"


@pytest.mark.parametrize(
    "policy",
    [
        'forbid(principal, action, resource) when { principal.name == "export" };',
        'forbid(principal == Job::"j-dev-1", action, resource);',
    ],
)
def test_a_permit_that_is_forbidden_only_to_some_is_no_finding(policy: str) -> None:
    assert findings(f'{ALL} @id("no") {policy}') == []


def test_an_action_that_no_policy_permits_is_reported_as_never_allowed() -> None:
    assert kinds('@id("r") permit(principal, action == Action::"read", resource);') == {
        ("never-allowed", "orders-db:write"),
        ("never-allowed", "orders-db:admin"),
    }


def test_an_action_that_needs_a_tier_without_approvers_is_reported() -> None:
    text = '@id("two") permit(principal, action, resource) when { context.approved_tier >= 2 };'
    assert findings(text, top=2) == []
    assert kinds(text, top=1) == {
        ("no-approvers", "policies/only.cedar:1:1"),
        *(("no-approvers", f"orders-db:{action}") for action in ("read", "write", "admin")),
    }
    assert {one.message for one in findings(text, top=1)} == {
        "decides nothing below tier 2, but approvals.yaml has no tier above 1",
        "needs tier 2, but approvals.yaml has no tier above 1, so it is always denied",
    }


def test_an_action_that_is_allowed_at_a_tier_and_not_at_the_top_is_always_denied() -> None:
    odd = findings('@id("one") permit(principal, action, resource) when { context.approved_tier == 1 };')

    assert {one.kind for one in odd} == {LintFindingKind.NOT_MONOTONE}
    assert odd[0].message == "allowed at tier 1 but not at tier 2, so it is always denied"


def test_a_gap_between_tiers_is_reported_with_the_tier_that_is_needed() -> None:
    text = f'{ALL} @id("not-two") forbid(principal, action, resource) when {{ context.approved_tier == 2 }};'
    odd = findings(text)

    assert {(one.kind, one.message) for one in odd} == {
        (LintFindingKind.NOT_MONOTONE, "allowed at tier 0 but not at tier 2, so it needs tier 3")
    }
    assert odd[0].policies == ("all", "not-two")


def test_tiers_that_contradict_for_some_requests_only_are_shown_by_one() -> None:
    text = f'{ALL} @id("long") forbid(principal, action, resource) when {{ context.approved_tier == 1 && context.ttl_seconds < 300 }};'
    odd = findings(text)

    assert {one.kind for one in odd} == {LintFindingKind.NOT_MONOTONE}
    assert odd[0].message == "a request with ttl 299s is allowed at tier 0 but not at tier 1"


def test_a_contradiction_between_tiers_that_depends_on_touched_data_is_found() -> None:
    text = f'{ALL} @id("no") forbid(principal, action, resource) when {{ context.approved_tier == 2 && context.touched == 3 }};'

    assert findings(text)[0].message == "a request with touched restricted is allowed at tier 0 but not at tier 2"


def test_a_contradiction_between_tiers_in_an_environment_that_only_a_policy_names_is_found() -> None:
    text = (
        f'{ALL} @id("no") forbid(principal, action, resource) when {{ context.approved_tier == 1 && principal.environment == "staging" }};'
    )

    assert findings(text)[0].message == "a request with environment staging is allowed at tier 0 but not at tier 1"


def test_a_contradiction_between_tiers_that_depends_on_two_facts_is_found() -> None:
    condition = 'context.approved_tier == 1 && context.ttl_seconds < 300 && principal.labels.contains("team=x")'
    odd = findings(f'{ALL} @id("long") forbid(principal, action, resource) when {{ {condition} }};')

    assert odd[0].message == "a request with ttl 299s and labels with team=x is allowed at tier 0 but not at tier 1"


def test_policies_that_complement_each_other_tier_by_tier_are_no_finding() -> None:
    text = """@id("a") permit(principal, action, resource) when { context.approved_tier == 1 && context.ttl_seconds <= 600 };
@id("b") permit(principal, action, resource) when { context.approved_tier >= 2 && context.ttl_seconds <= 900 };"""
    assert findings(text) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=texts,
    top=st.integers(0, 3),
    sensitivity=st.sampled_from(Sensitivity),
    external=st.booleans(),
    action=st.sampled_from(Action),
    touched=st.integers(0, 3),
    ttl=st.integers(1, 2000),
    labelled=st.booleans(),
)
def test_a_policy_reported_as_unreachable_decides_no_request(
    text: str, top: int, sensitivity: Sensitivity, external: bool, action: Action, touched: int, ttl: int, labelled: bool
) -> None:
    loaded, target = rules(text, top=top).policies, resource(sensitivity, external=external)
    catalog = CATALOG.model_copy(update={"resources": {"orders-db": target}})
    odd = lint_policies(PolicyEvaluator(loaded, catalog, top), frozenset({"ops"}))
    context = access_context(ttl_seconds=ttl, held=HeldAccess(touched=Sensitivity(touched)))
    decision = loaded.decide(job(labels={"team": "support"} if labelled else {}), "orders-db", target, action, context=context, top=top)

    unreachable = {one.policies[0] for one in odd if one.kind is LintFindingKind.UNREACHABLE}
    if decision.outcome != "denied":
        assert not unreachable & set(decision.policies)
        never = {one.where for one in odd if one.kind in {LintFindingKind.NEVER_ALLOWED, LintFindingKind.NO_APPROVERS}}
        assert f"orders-db:{action}" not in never
    assert not {one.message for one in odd if one.where == f"orders-db:{action}" and "always denied" in one.message} or (
        decision.outcome == "denied"
    )
