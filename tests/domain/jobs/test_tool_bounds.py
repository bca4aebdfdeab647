"""How an order bounds a tool's calls: bounds can only narrow, and an error names the bound that a call exceeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.untrusted_yaml import MAX_SAFE_INTEGER
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bound, Bounds, intersect_all
from justenough.domain.tools.call import OutOfBounds, ToolCall, let_tool_through, tool_only_items, with_bounds
from tests.domain.tools.test_definitions import catalog_with

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
        ({"maximum": 1_234_567.5}, 1_234_568, "must be a number of at most 1234567.5"),
        ({"minimum": 10_000_000}, 9_999_999, "must be a number of at least 10000000"),
        ({"maximum": 100}, "5", "must be a number of at most 100"),
        ({"maximum": 100}, True, "must be a number of at most 100"),
        ({"minimum": 1}, 0, "must be a number of at least 1"),
        ({"one_of": [1, "a"]}, "a", None),
        ({"one_of": [1, "a"]}, 1.0, None),
        ({"one_of": [1, "a"]}, True, "must be one of the 2 values that the order lists"),
        ({"prefix": "/in/"}, "/in/x", None),
        ({"prefix": "/in/"}, "/in/../out", "must begin with '/in/' and must not contain a path part `..`"),
        *(
            ({"prefix": "/in/"}, f"/in/{way}", "must begin with '/in/' and must not contain a path part `..`")
            for way in (
                "x\\..\\out",
                "..\\out",
                "%2e%2e/out",
                ".\t./.\t./out",
                ".\n./out",
                ".%09./out",
                "..?x",
                "..#x",
                "a/..%3fx",
                "%2E.%2fout",
                "..%2Fout",
                "%252e%252e/out",
                # This is encoded too often to tell what it is.
                f"a%{'25' * 7}2fx",
                "..;/out",
                "..;v=1/out",
                ".. /out",
            )
        ),
        ({"prefix": "/in/"}, "/in/a..b/...;/50%", None),
        ({"prefix": "/other"}, "/in/", "must begin with '/other' and must not contain a path part `..`"),
        ({"prefix": "/in/"}, "/other", "must begin with '/in/' and must not contain a path part `..`"),
        ({"prefix": "/in/"}, 7, "must begin with '/in/' and must not contain a path part `..`"),
        ({"minimum": 1, "maximum": 2}, 3, "must be a number of at most 2"),
        ({"each": {"one_of": ["ann", "bob"]}}, ["bob", "ann"], None),
        ({"each": {"one_of": ["ann", "bob"]}}, [], None),
        ({"each": {"one_of": ["ann", "bob"]}}, ["ann", "eve"], "each item must be one of the 2 values that the order lists"),
        ({"each": {"one_of": ["ann", "bob"]}}, "ann", "must be a list"),
        ({"each": {"one_of": [1]}}, [True], "each item must be one of the 1 values that the order lists"),
        ({"each": {"prefix": "/in/"}}, ["/in/a", ["/in/b"]], "each item must begin with '/in/' and must not contain a path part `..`"),
        ({"max_items": 1}, ["a"], None),
        ({"max_items": 1}, ["a", "a"], "must have at most 1 item"),
        ({"max_items": 0}, {"a": 1}, "must be a list"),
        ({"calls_per_value": 1}, [1], "must be a plain value, because the order counts calls by it"),
    ],
)
def test_an_argument_is_checked_against_its_bound(bound: dict[str, Any], value: Any, problem: str | None) -> None:
    assert Bound.model_validate(bound).problem(value) == problem


def test_a_bound_argument_must_be_given() -> None:
    bounds = Bounds.model_validate({"arguments": {"amount": {"maximum": 1}}})
    assert list(bounds.problems({}, calls_made=0)) == ["amount: required, because the order bounds it"]


def test_another_spelling_of_a_bound_argument_does_not_bypass_its_bound() -> None:
    bounds = Bounds.model_validate({"arguments": {"amount": {"maximum": 1}}})
    assert list(bounds.problems({"amount": 1, "Amount": 5}, calls_made=0)) == [
        "Amount: differs only in case from an argument that the order bounds"
    ]


@pytest.mark.parametrize("made, problems", [(0, []), (2, []), (3, ["the order allows 3 calls of it, and this limit is reached"])])
def test_calls_of_a_tool_are_counted_against_its_bound(made: int, problems: list[str]) -> None:
    assert list(Bounds(calls=3).problems({}, calls_made=made)) == problems


@pytest.mark.parametrize(
    "written, arguments, problems",
    [
        ({"arguments": {"amount": {"maximum": 1}}}, {"amount": 1, "note": "x"}, ["note: the order allows no argument except amount"]),
        ({"arguments": {"amount": {"maximum": 1}}, "other_arguments": "any"}, {"amount": 1, "note": "x"}, []),
        ({"other_arguments": "none"}, {"note": "x"}, ["note: the order allows no arguments"]),
        ({}, {"note": "x"}, []),
    ],
)
def test_bounding_one_argument_forbids_the_arguments_that_are_not_listed(
    written: dict[str, Any], arguments: dict[str, Any], problems: list[str]
) -> None:
    (item,) = spec({"find": written}).access
    assert item.tools is not None
    assert list(item.tools["find"].problems(arguments, calls_made=0)) == problems
    raw = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "see", "at": "request", "tools": {"find": written}}
    earlier = checked_spec({**SPEC, "access": [raw]}, before_ceiling=True).access[0].tools
    # Bounds that were signed before keep their meaning and their exact form.
    assert earlier == {"find": Bounds.model_validate(written)}


@pytest.mark.parametrize("made, same_value_calls, is_refused", [(5, 0, False), (5, 1, True), (0, 0, False)])
def test_calls_of_a_tool_can_be_counted_per_value(made: int, same_value_calls: int, *, is_refused: bool) -> None:
    bounds = Bounds.model_validate({"arguments": {"order_id": {"calls_per_value": 1}}})
    problems = list(bounds.problems({"order_id": 7}, calls_made=made, same_value_calls={"order_id": same_value_calls}))
    said = "order_id: the order allows 1 call with each value, and this value has had that many"
    assert problems == ([said] if is_refused else [])


def test_a_bound_of_zero_calls_allows_no_call() -> None:
    assert list(Bounds(calls=0).problems({}, calls_made=0)) == ["the order allows 0 calls of it, and this limit is reached"]
    items = tool_only_items(spec({"find": {"calls": 0}, "file": {}}), "orders-db", Action.READ)
    assert [let_tool_through(items, name) for name in ("find", "file", "other")] == [False, True, False]


def test_an_empty_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="the bound is empty"):
        Bound.model_validate({})


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e400", 1e20, float("inf")])
@pytest.mark.parametrize("name", ["minimum", "maximum"])
def test_a_bound_that_json_cannot_record_exactly_is_refused(name: str, number: Any) -> None:
    with pytest.raises(ValidationError, match="must be a number from -9,007,199,254,740,991 to 9,007,199,254,740,991"):
        Bound.model_validate({name: number})


@given(st.floats(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER), st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_beyond_a_maximum_gets_through(most: float, value: float) -> None:
    assert (Bound(maximum=most).problem(value) is None) == (value <= most)


def test_an_action_is_limited_to_tools_only_if_every_item_of_the_order_limits_it() -> None:
    assert tool_only_items(spec(None), "orders-db", Action.READ) == ()
    assert tool_only_items(spec({"find": {}}, None), "orders-db", Action.READ) == ()
    assert len(tool_only_items(spec({"find": {}}, {"file": {}}), "orders-db", Action.READ)) == 2


def test_a_call_gets_the_bounds_of_the_first_item_that_allows_it() -> None:
    items = tool_only_items(spec({"find": {"arguments": {"order_id": {"one_of": [1]}}}}, {"find": {"calls": 2}}), "orders-db", Action.READ)
    assert with_bounds(ToolCall(tool="find", arguments={"order_id": 1}), items, calls_made=0).within == Bounds(
        arguments={"order_id": Bound(one_of=(1,))}, other_arguments="none"
    )
    assert with_bounds(ToolCall(tool="find", arguments={"order_id": 2}), items, calls_made=1).within == Bounds(calls=2)
    with pytest.raises(OutOfBounds, match="order_id: must be one of the 1 values"):
        with_bounds(ToolCall(tool="find", arguments={"order_id": 2}), items, calls_made=2)
    with pytest.raises(OutOfBounds, match="the order does not name file"):
        with_bounds(ToolCall(tool="file", arguments={}), items, calls_made=0)


@pytest.mark.parametrize(
    "tools, problem",
    [
        ({"fnd": {}}, "access[0].tools.fnd: no tool of this name uses read on orders-db; did you mean 'find'?"),
        ({"find": {"arguments": {"order": {"maximum": 1}}}}, "access[0].tools.find.arguments.order: find has no such argument; did you mean 'order_id'?"),
        ({"find": {"other_arguments": "none"}}, "access[0].tools.find.other_arguments: find requires order_id, which the order does not bind; bind it, or write `other_arguments: any`"),
    ],
)  # fmt: skip
def test_bounds_on_tools_or_arguments_that_do_not_exist_are_refused_by_their_path(tools: dict[str, Any], problem: str) -> None:
    assert [str(one) for one in problems_in_spec(spec(tools), catalog_with())] == [problem]


def test_access_through_tools_cannot_be_delivered_to_the_job() -> None:
    assert spec({"find": {}}, at="start").access[0].tools == {"find": Bounds()}
    item = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "see", "tools": {"find": {}}}
    with pytest.raises(InvalidInput, match=r"access\[0\]: `deliver` and `tools` are mutually exclusive"):
        checked_spec({**SPEC, "access": [{**item, "deliver": {"env": {"PGUSER": "username"}}}]})


SAMPLES: tuple[Any, ...] = (
    *(-1, 0, 1, 1.0, 1.5, 2, 3, 99, 100, 100.5, True, False, None, [], {}),
    *("", "a", "a/", "a/b", "a/b/c", "a/..", "a/../b", "a/..b", "b", "..", "1"),
    *([1], ["a"], ["a", "b"], [1, "a", 2], [[]], [True]),
)
TEXTS = st.sampled_from(("a", "a/", "a/b", "a/..", "a/../b", "b", ".."))
NUMBERS = st.sampled_from((0.0, 1.0, 1.5, 2.0, 100.0))
VALUES = st.sampled_from((0, 1, 1.5, 2, True, "a", "a/b", "b", "1"))
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "prefix": TEXTS,
    "one_of": st.lists(VALUES, min_size=1, max_size=4).map(tuple),
}
LISTS: dict[str, st.SearchStrategy[Any]] = {
    "each": st.fixed_dictionaries({}, optional=PLAIN).filter(bool),
    "max_items": st.integers(0, 2),
    "calls_per_value": st.integers(1, 2),
}
BOUND = (
    # Most bounds are for plain values or for lists; one for both has no values.
    st.one_of(*(st.fixed_dictionaries({}, optional=kinds) for kinds in (PLAIN, LISTS, PLAIN | LISTS)))
    .filter(bool)
    .map(Bound.model_validate)
)
BOUNDS = st.builds(
    Bounds,
    calls=st.none() | st.integers(0, 4),
    arguments=st.dictionaries(st.sampled_from(("amount", "path")), BOUND, max_size=2),
    other_arguments=st.sampled_from((None, "none", "any")),
)
TOOLS = st.dictionaries(st.sampled_from(("find", "file")), BOUNDS, max_size=2)
CALLS = [{"amount": one, "path": other} for one in SAMPLES[:10] for other in SAMPLES[15:]] + [{"amount": 1}, {"path": "a"}, {}]


def is_within(bound: Bound | None, value: Any) -> bool:
    return bound is not None and bound.problem(value) is None


def is_allowed(tools: Mapping[str, Bounds], name: str, arguments: dict[str, Any], calls: int) -> bool:
    return name in tools and not list(tools[name].problems(arguments, calls_made=calls))


@given(BOUND, BOUND)
def test_the_intersection_of_two_bounds_allows_exactly_what_both_allow(one: Bound, other: Bound) -> None:
    both_ = one.intersect(other)
    for value in SAMPLES:
        assert is_within(both_, value) == (is_within(one, value) and is_within(other, value)), value
    assert both_ is None or (both_.is_within(one) and both_.is_within(other))
    assert one.intersect(one) is None if one.is_empty else one.intersect(one) is not None


@given(BOUND, BOUND, BOUND)
def test_one_bound_is_within_another_only_if_it_lets_nothing_more_through(one: Bound, other: Bound, third: Bound) -> None:
    assert one.is_within(one)
    if one.is_within(other):
        assert [value for value in SAMPLES if is_within(one, value) and not is_within(other, value)] == []
        if other.is_within(third):
            assert one.is_within(third)
    if one.is_empty:
        assert [value for value in SAMPLES if is_within(one, value)] == []


@given(TOOLS, TOOLS)
def test_the_intersection_of_bounds_allows_exactly_what_each_of_them_allows(one: dict[str, Bounds], other: dict[str, Bounds]) -> None:
    left = intersect_all(one, other)
    for name in ("find", "file"):
        for arguments in CALLS:
            for made in (0, 2):
                want = is_allowed(one, name, arguments, made) and is_allowed(other, name, arguments, made)
                assert is_allowed(left, name, arguments, made) == want
        if name in left:
            assert not [*left[name].excess_over(one[name]), *left[name].excess_over(other[name])]


@given(BOUNDS, BOUNDS, BOUNDS)
def test_no_call_is_within_narrower_bounds_and_beyond_the_wider_ones(one: Bounds, other: Bounds, third: Bounds) -> None:
    assert not list(one.excess_over(one))
    if not list(one.excess_over(other)):
        for arguments in CALLS:
            for made in (0, 1, 3):
                assert list(one.problems(arguments, calls_made=made)) or not list(other.problems(arguments, calls_made=made))
        if not list(other.excess_over(third)):
            assert not list(one.excess_over(third))


@pytest.mark.parametrize(
    "narrow, wide, holds",
    [
        ({"maximum": 50}, {"maximum": 100}, True),
        ({"maximum": 100.5}, {"maximum": 100}, False),
        ({"one_of": [1, 2]}, {"maximum": 2}, True),
        ({"one_of": [1, 3]}, {"one_of": [1, 2]}, False),
        ({"minimum": 5, "maximum": 5}, {"one_of": [5]}, True),
        ({"prefix": "/in/2026/"}, {"prefix": "/in/"}, True),
        ({"prefix": "/in"}, {"prefix": "/in/"}, False),
        ({"maximum": 5}, {"minimum": 0, "maximum": 5}, False),
        ({"each": {"maximum": 1}}, {"each": {"maximum": 2}}, True),
        ({"each": {"maximum": 1}}, {"each": {"maximum": 1}, "max_items": 2}, False),
        ({"max_items": 0}, {"each": {"maximum": 1}}, True),
        ({"maximum": 1}, {"max_items": 1}, False),
        ({"one_of": [1], "calls_per_value": 1}, {"calls_per_value": 2}, True),
        ({"one_of": [1], "calls_per_value": 3}, {"one_of": [1], "calls_per_value": 2}, False),
        ({"one_of": [1]}, {"one_of": [1], "calls_per_value": 2}, False),
    ],
)
def test_one_bound_is_within_another_exactly_as_the_table_says(narrow: dict[str, Any], wide: dict[str, Any], *, holds: bool) -> None:
    assert Bound.model_validate(narrow).is_within(Bound.model_validate(wide)) == holds
