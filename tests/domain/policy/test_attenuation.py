"""A child job's access is within its parent's; if not, the error names the path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.jobs.spec import Access, JobSpec, checked_spec
from justenough.domain.jobs.tool_bounds import Bounds
from justenough.domain.policy.ceiling import access_attenuation_problems, attenuation_problems
from justenough.domain.tools.call import ToolCall, access_for_call
from tests.domain.jobs.test_tool_bounds import CALLS, TOOLS, is_allowed

BASE: dict[str, Any] = {
    "name": "parent",
    "task": "Look",
    "environment": "prod",
    "data_scope": {"tenant": "acme"},
    "run": {"command": ["true"], "timeout": "10m", "network": "none", "limits": {"memory": "512MiB"}},
    "model": {"name": "default", "requests": 10, "tokens": 1000},
    "access": [{"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "see"}],
}
PARENT = checked_spec(BASE)
SOME = TOOLS.map(lambda tools: tools or {"find": Bounds()})
"""Tools of which there is at least one."""


def child(**changes: Any) -> JobSpec:
    run = {**BASE["run"], **changes.pop("run", {})}
    return checked_spec({**BASE, "name": "child", **changes, "run": run})


@pytest.mark.parametrize(
    "changes, paths",
    [
        ({}, []),
        ({"access": []}, []),
        ({"model": None}, []),
        ({"data_scope": {"tenant": "acme", "region": "eu"}}, []),
        ({"run": {"timeout": "5m", "limits": {"memory": "256MiB"}}}, []),
        ({"beyond": "none"}, []),
        ({"beyond": "policy"}, ["beyond"]),
        ({"environment": "test"}, ["environment"]),
        ({"data_scope": {}}, ["data_scope.tenant"]),
        ({"data_scope": {"tenant": "globex"}}, ["data_scope.tenant"]),
        ({"run": {"timeout": "11m", "network": "host"}}, ["run.timeout", "run.network"]),
        ({"run": {"limits": {"memory": "1GiB", "cpu": "11m", "processes": 300}}}, ["run.limits.cpu", "run.limits.memory", "run.limits.processes"]),
        ({"run": {"limits": {}}}, ["run.limits.memory"]),
        ({"model": {"name": "default", "requests": 11, "tokens": 1001}}, ["model.requests", "model.tokens"]),
        ({"model": {"name": "other", "requests": 1, "tokens": 1}}, ["model.name"]),
    ],
)  # fmt: skip
def test_each_excess_of_a_spec_is_named_by_its_path(changes: dict[str, Any], paths: list[str]) -> None:
    assert [problem.path for problem in attenuation_problems(child(**changes), PARENT)] == paths


def test_a_child_that_may_go_beyond_its_order_more_easily_is_told_what_to_write() -> None:
    (problem,) = attenuation_problems(child(beyond="policy"), PARENT)
    assert str(problem) == "beyond: `policy` allows more than the parent job's `ask`; write `beyond: ask`"


def item(tools: dict[str, Bounds] | None, ttl: int = 60) -> Access:
    return Access(resource="orders-db", action="read", ttl=ttl, reason="see", at="request").model_copy(update={"tools": tools})  # type: ignore[arg-type]  # the action as people write it


def problems(access: Access, *items: Access) -> list[str]:
    return [problem.path for problem in access_attenuation_problems(access, items)]


def test_the_problems_of_the_best_matching_item_are_reported() -> None:
    bound = item({"find": Bounds(calls=2)}, ttl=600)
    assert problems(item(None), bound, item(None)) == []
    assert problems(item(None, ttl=300), bound, item(None)) in (["access.ttl"], ["access.tools"])
    assert problems(item({"find": Bounds(calls=2)}, ttl=300), bound, item(None)) == []
    assert problems(item({"find": Bounds(calls=3)}, ttl=300), bound) == ["access.tools.find.calls"]


@given(st.none() | SOME, st.none() | SOME, st.integers(1, 3), st.integers(1, 3))
def test_bounds_within_the_parents_allow_no_call_that_the_parent_may_not_make(
    mine: dict[str, Bounds] | None, theirs: dict[str, Bounds] | None, ttl: int, most: int
) -> None:
    wanted, launching = item(mine, ttl), item(theirs, most)
    assert problems(launching, launching) == []
    if problems(wanted, launching):
        return
    assert ttl <= most
    assert theirs is None or mine is not None
    for name in ("find", "file"):
        for arguments in CALLS:
            if theirs is not None and mine is not None and is_allowed(mine, name, arguments, 0):
                assert is_allowed(theirs, name, arguments, 0)


@given(SOME, st.sampled_from(("find", "file")), st.sampled_from(CALLS))
def test_a_running_childs_call_is_allowed_exactly_if_its_parent_may_make_it(
    theirs: dict[str, Bounds], name: str, arguments: dict[str, Any]
) -> None:
    wanted = access_for_call(item(None), ToolCall(tool=name, arguments=arguments))
    assert (problems(wanted, item(theirs)) == []) == is_allowed(theirs, name, arguments, 0)
