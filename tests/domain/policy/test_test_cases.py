"""Tests of policies as tables: what they ask, what counts as a failure, and what is refused with its path."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs.spec import read_spec
from justenough.domain.jobs.states import Action
from justenough.domain.policy.test_cases import (
    CaseResult,
    PolicyTestTable,
    policy_table_problems,
    read_policy_table,
    run_cases,
    run_spec_case,
    spec_case_problems,
)
from tests.support.domain_samples import SHOP
from tests.support.policy_samples import CATALOG, rules, shop_rules

LAUNCH = frozenset({"ops"})
GROUPS = '@id("ops-only") permit(principal, action, resource) when { principal.requester_groups.contains("ops") };'


def results(text: str) -> list[CaseResult]:
    return list(run_cases("a.yaml", read_policy_table("a.yaml", text), shop_rules(), LAUNCH))


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        read_policy_table("a.yaml", text)
    return [str(problem) for problem in refused.value.problems]


def test_a_case_passes_if_outcome_and_policies_are_as_expected() -> None:
    (one,) = results("cases: [{ask: 'orders-db:write', expect: tier 1, by: [write-at-tier-1]}]")

    assert (one.passed, one.name, one.case) == (True, "orders-db:write", "cases[0]")


@pytest.mark.parametrize(
    "case", ["expect: allowed", "expect: tier 2", "expect: denied", "expect: tier 1, by: [admin-at-tier-2]", "expect: tier 1, by: []"]
)
def test_a_case_fails_by_its_outcome_or_by_the_policies_that_decided(case: str) -> None:
    (one,) = results(f"cases: [{{ask: 'orders-db:write', {case}}}]")

    assert not one.passed
    assert (one.got.outcome, one.got.by) == ("tier 1", ("write-at-tier-1",))


@pytest.mark.parametrize(
    "more, outcome",
    [
        ("", "tier 2"),
        ("after: ['customers-db:read'], ", "denied"),
        ("after: ['customers-db:read'], returned: ['customers-db:read'], ", "denied"),
        ("after: ['orders-db:read'], ", "tier 2"),
        ("job: {environment: staging}, ", "denied"),
    ],
)
def test_earlier_access_stays_touched_and_the_requester_matters_in_a_case(more: str, outcome: str) -> None:
    (one,) = results(f"cases: [{{ask: 'export-api:write', {more}expect: {outcome}}}]")

    assert one.passed, one.got


def test_a_case_inherits_each_missing_part_of_its_job_from_the_defaults() -> None:
    text = """
defaults: {job: {environment: staging, labels: {team: x}}, ttl: 10m}
cases:
  - {ask: "orders-db:read", expect: denied}
  - {ask: "orders-db:read", job: {environment: prod}, expect: allowed}
"""
    table = read_policy_table("a.yaml", text)

    assert [case.ttl for case in table.cases] == [600, 600]
    assert dict(table.cases[1].job.labels) == {"team": "x"}
    assert [one.passed for one in results(text)] == [True, True]


def test_a_case_without_groups_has_those_that_may_launch() -> None:
    table = read_policy_table(
        "a.yaml", "cases: [{ask: 'orders-db:read', expect: allowed}, {ask: 'orders-db:read', groups: [], expect: denied}]"
    )

    assert [one.passed for one in run_cases("a.yaml", table, rules(GROUPS), LAUNCH)] == [True, True]


def test_a_spec_is_decided_as_a_whole_with_its_params() -> None:
    table = read_policy_table("a.yaml", "specs: [{spec: jobs/export-customers.yaml, expect: [tier 2, allowed]}]")
    raw = read_spec((SHOP / "jobs/export-customers.yaml").read_bytes())
    found = list(run_spec_case("a.yaml", 0, table.specs[0], raw, shop_rules(), LAUNCH))

    assert [(one.ask, one.passed, one.case) for one in found] == [
        ("customers-db:read", True, "specs[0].expect[0]"),
        ("export-api:write", False, "specs[0].expect[1]"),
    ]


@pytest.mark.parametrize(
    "case, problem",
    [
        ("{spec: jobs/hello.yaml, expect: []}", "specs[0].expect: jobs/hello.yaml has 1 requests, but 0 outcomes are expected"),
        (
            "{spec: jobs/hello.yaml, params: {x: '1'}, expect: [allowed]}",
            "specs[0]: jobs/hello.yaml: params.x: the spec declares no such parameter",
        ),
    ],
)
def test_each_mistake_in_a_cases_spec_is_reported_by_its_place(case: str, problem: str) -> None:
    table = read_policy_table("a.yaml", f"specs: [{case}]")
    raw = read_spec((SHOP / "jobs/hello.yaml").read_bytes())

    assert [str(one) for one in spec_case_problems("specs[0]", table.specs[0], raw, shop_rules())] == [problem]


@pytest.mark.parametrize(
    "text, problem",
    [
        ("[]", "must be a mapping with `cases` or `specs`"),
        ("{}", "has neither `cases` nor `specs`"),
        ("cases: [{ask: orders-db, expect: allowed}]", "cases[0].ask: must match the pattern"),
        ("cases: [{ask: 'orders-db:read', expect: tier2}]", "cases[0].expect: must be one of allowed, tier 1, tier 2, tier 3, denied"),
        ("cases: [{ask: 'orders-db:read'}]", "cases[0].expect: required"),
        ("cases: [{ask: 'orders-db:read', expect: allowed, colour: red}]", "cases[0].colour: unknown key"),
        ("defaults: {colour: red}\ncases: [{ask: 'orders-db:read', expect: allowed}]", "cases[0].colour: unknown key"),
        ("cases: [{ask: 'a:read', expect: allowed, phase: later}]", "cases[0].phase: must be"),
        ("cases: [x]", "cases[0]: must be a mapping"),
        ("cases: [", "line 1, column 9"),
    ],
)
def test_an_invalid_policy_test_file_is_refused_with_the_place(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


def test_unknown_resources_and_actions_in_a_policy_test_are_reported_by_their_place() -> None:
    table = read_policy_table("a.yaml", "cases: [{ask: 'order-db:read', after: ['export-api:admin'], expect: allowed}]")

    assert policy_table_problems(table, shop_rules()) == (
        Problem("cases[0].ask", "unknown resource 'order-db'; did you mean 'orders-db'?"),
        Problem("cases[0].after", "export-api does not offer admin; it offers write"),
    )


def test_the_shops_policy_tests_cover_every_action_of_its_catalog_and_every_policy() -> None:
    tables = [read_policy_table(path.name, path.read_bytes()) for path in (SHOP / "policies/tests").glob("*.yaml")]
    offered = {f"{name}:{action}" for name, resource in CATALOG.resources.items() for action in resource.actions}

    assert {case.ask for table in tables for case in table.cases} == offered
    assert {name for table in tables for case in table.cases for name in case.by or ()} == set(shop_rules().policies.ids)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8)
)
def test_any_policy_test_file_is_read_or_refused(value: Any) -> None:
    # Any other error than a refusal fails the test.
    with contextlib.suppress(InvalidInput):
        assert isinstance(read_policy_table("a.yaml", json.dumps({"cases": value, "defaults": value})), PolicyTestTable)


@given(st.sampled_from(sorted(CATALOG.resources)), st.sampled_from(Action), st.integers(1, 86400))
def test_a_policy_test_agrees_with_the_policies(name: str, action: Action, ttl: int) -> None:
    from tests.support.domain_samples import access_context, job

    found = shop_rules()
    decision = found.policies.decide(job(), name, CATALOG.resources[name], action, context=access_context(ttl_seconds=ttl))
    text = f"cases: [{{ask: '{name}:{action}', ttl: {ttl}s, groups: [ops], expect: denied}}]"
    (one,) = run_cases("a.yaml", read_policy_table("a.yaml", text), found, LAUNCH)

    assert one.got.by == decision.policies
    assert one.passed == (decision.outcome == "denied")
