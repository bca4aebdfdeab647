"""What an order binds a tool's calls to: it can only narrow, and says which bound stands against a call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from justenough.access import Action
from justenough.bounds import Bound, Bounds
from justenough.calls import Call, OutOfBounds, bounded, within
from justenough.catalog import problems_of
from justenough.errors import InvalidInput
from justenough.spec import JobSpec, checked_spec
from tests.justenough.test_tools import catalog_with

SPEC: dict[str, Any] = {
    "name": "triage",
    "task": "Look",
    "environment": "prod",
    "data_scope": {"tenant": "acme"},
    "run": {"command": ["true"]},
}


def spec(*tools: dict[str, Any] | None, at: str = "request") -> JobSpec:
    """An order with one read for each of these bounds."""
    item = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "see", "at": at}
    return checked_spec({**SPEC, "access": [{**item, **({"tools": one} if one is not None else {})} for one in tools]})


@pytest.mark.parametrize(
    "bound, value, problem",
    [
        ({"maximum": 100}, 100, None),
        ({"maximum": 100}, 100.01, "must be a number of at most 100"),
        ({"maximum": 100}, "5", "must be a number of at most 100"),
        ({"maximum": 100}, True, "must be a number of at most 100"),
        ({"minimum": 1}, 0, "must be a number of at least 1"),
        ({"one_of": [1, "a"]}, "a", None),
        ({"one_of": [1, "a"]}, 1.0, None),
        ({"one_of": [1, "a"]}, True, "must be one of the 2 values that the order lists"),
        ({"prefix": "/in/"}, "/in/x", None),
        ({"prefix": "/in/"}, "/in/../out", "must begin with '/in/', and have no part `..`"),
        ({"prefix": "/in/"}, "/other", "must begin with '/in/', and have no part `..`"),
        ({"prefix": "/in/"}, 7, "must begin with '/in/', and have no part `..`"),
        ({"minimum": 1, "maximum": 2}, 3, "must be a number of at most 2"),
    ],
)
def test_an_argument_is_held_against_its_bound(bound: dict[str, Any], value: Any, problem: str | None) -> None:
    assert Bound.model_validate(bound).problem(value) == problem


def test_what_is_bound_must_be_given() -> None:
    bounds = Bounds.model_validate({"arguments": {"amount": {"maximum": 1}}})
    assert list(bounds.problems({}, made=0)) == ["amount: must be given, for the order binds it"]


@pytest.mark.parametrize("made, problems", [(0, []), (2, []), (3, ["the order allows 3 calls of it, which were made"])])
def test_calls_are_counted(made: int, problems: list[str]) -> None:
    assert list(Bounds(calls=3).problems({}, made=made)) == problems


def test_a_bound_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="says nothing"):
        Bound.model_validate({})


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_beyond_a_maximum_gets_through(most: float, value: float) -> None:
    assert (Bound(maximum=most).problem(value) is None) == (value <= most)


def test_an_action_is_bounded_only_where_every_item_of_the_order_says_so() -> None:
    assert bounded(spec(None), "orders-db", Action.READ) == ()
    assert bounded(spec({"find": {}}, None), "orders-db", Action.READ) == ()
    assert len(bounded(spec({"find": {}}, {"file": {}}), "orders-db", Action.READ)) == 2


def test_a_call_goes_through_the_first_item_that_lets_it_and_carries_its_bounds() -> None:
    items = bounded(spec({"find": {"arguments": {"order_id": {"one_of": [1]}}}}, {"find": {"calls": 2}}), "orders-db", Action.READ)
    assert within(Call(tool="find", arguments={"order_id": 1}), items, made=0).within == Bounds(arguments={"order_id": Bound(one_of=(1,))})
    assert within(Call(tool="find", arguments={"order_id": 2}), items, made=1).within == Bounds(calls=2)
    with pytest.raises(OutOfBounds, match="order_id: must be one of the 1 values"):
        within(Call(tool="find", arguments={"order_id": 2}), items, made=2)
    with pytest.raises(OutOfBounds, match="the order does not name file"):
        within(Call(tool="file", arguments={}), items, made=0)


@pytest.mark.parametrize(
    "tools, problem",
    [
        ({"fnd": {}}, "access[0].tools.fnd: no tool of this name uses read on orders-db; did you mean 'find'?"),
        ({"find": {"arguments": {"order": {"maximum": 1}}}}, "access[0].tools.find.arguments.order: find takes no such argument; did you mean 'order_id'?"),
    ],
)  # fmt: skip
def test_bounds_on_what_the_catalog_does_not_have_are_refused_by_their_path(tools: dict[str, Any], problem: str) -> None:
    assert [str(one) for one in problems_of(spec(tools), catalog_with())] == [problem]


def test_bounds_go_with_what_is_asked_for_while_the_job_runs() -> None:
    with pytest.raises(InvalidInput, match=r"access\[0\]: `tools` goes with `at: request`"):
        spec({"find": {}}, at="start")
