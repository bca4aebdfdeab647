"""The syntax of tool bounds: what people write is read as they mean it, never allows more than was requested, and is printed as it is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.tool_bounds import Bounds
from justenough.domain.jobs.tool_bounds_syntax import format_tool_lines, parse_tool_bounds
from tests.domain.jobs.test_tool_bounds import TOOLS

ASKED = {
    "refund-order": Bounds.model_validate({"calls": 5, "arguments": {"amount": {"maximum": 100}}}),
    "find-order": Bounds(),
}


@pytest.mark.parametrize(
    "lines, said",
    [
        (["find-order"], {"find-order": {}}),
        (["refund-order"], {"refund-order": {"calls": 5, "arguments": {"amount": {"maximum": 100}}}}),
        (["refund-order:calls=3"], {"refund-order": {"calls": 3, "arguments": {"amount": {"maximum": 100}}}}),
        (["refund-order:calls=9"], {"refund-order": {"calls": 5, "arguments": {"amount": {"maximum": 100}}}}),
        (["refund-order:amount<=50"], {"refund-order": {"calls": 5, "arguments": {"amount": {"maximum": 50}}}}),
        (["refund-order:amount<=500"], {"refund-order": {"calls": 5, "arguments": {"amount": {"maximum": 100}}}}),
        (
            ["find-order:order_id=4711, 4712", "find-order:calls=2"],
            {"find-order": {"calls": 2, "arguments": {"order_id": {"one_of": [4711, 4712]}}}},
        ),
        (['find-order:who="a,b",c'], {"find-order": {"arguments": {"who": {"one_of": ['"a', 'b"', "c"]}}}}),
        (['find-order:who="a,b","c"'], {"find-order": {"arguments": {"who": {"one_of": ["a,b", "c"]}}}}),
        (["find-order:calls=0"], {"find-order": {"calls": 0}}),
        (
            ["find-order:each to=ann,bob", "find-order:items of to<=3", "find-order:other_arguments=none"],
            {"find-order": {"arguments": {"to": {"each": {"one_of": ["ann", "bob"]}, "max_items": 3}}, "other_arguments": "none"}},
        ),
        (["find-order:calls per order_id=1"], {"find-order": {"arguments": {"order_id": {"calls_per_value": 1}}}}),
        (["find-order:each=1"], {"find-order": {"arguments": {"each": {"one_of": [1]}}}}),
        (["find-order:path^=/in/"], {"find-order": {"arguments": {"path": {"prefix": "/in/"}}}}),
        (["find-order:arguments.calls>=1.5"], {"find-order": {"arguments": {"calls": {"minimum": 1.5}}}}),
        (
            ["find-order", "refund-order:amount<=1"],
            {"find-order": {}, "refund-order": {"calls": 5, "arguments": {"amount": {"maximum": 1}}}},
        ),
    ],
)
def test_written_tool_bounds_allow_only_the_named_tools_within_the_requested_bounds(lines: list[str], said: dict[str, Any]) -> None:
    assert parse_tool_bounds(lines, ASKED) == {name: Bounds.model_validate(bounds) for name, bounds in said.items()}


@pytest.mark.parametrize(
    "line, problem",
    [
        ("", "write TOOL, TOOL:calls=3"),
        ("find order", "write TOOL, TOOL:calls=3"),
        ("find-order:amount", "write TOOL, TOOL:calls=3"),
        ("find-order:amount<=much", "<= needs a number"),
        ("find-order:amount<=nan", "<= needs a number"),
        ("find-order:amount>=inf", ">= needs a number"),
        ("find-order:calls=-1", "calls= needs a number from 0 to 10,000"),
        ("find-order:calls>=1", "calls= needs a number from 0 to 10,000"),
        ("find-order:items of to>=1", "items of to= needs a number from 0 to 10,000"),
        ("find-order:calls per to=0", "calls per to= needs a number from 1 to 10,000"),
        ("find-order:other_arguments=any", "other_arguments= can only be none"),
        (f"find-order:who={'x' * 1001}", "must have at most 1,000 characters"),
        (f"find-order:who^={'x' * 1001}", "must have at most 1,000 characters"),
        (f"find-order:who={'1,' * 1001}1", "must have at most 1,000 items"),
        ("find-order:each to", "write TOOL, TOOL:calls=3"),
        ("find-order:who=[1]", "= needs one or more plain values"),
        ("drop-order", "drop-order: was not requested; requested: find-order, refund-order"),
        ("refund-order:amount>=500", "refund-order: no call satisfies both these bounds and the requested ones"),
    ],
)
def test_an_invalid_line_of_tool_bounds_is_refused_with_the_problem(line: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_tool_bounds([line], ASKED)
    assert problem in str(refused.value.problems[0])


def test_a_request_without_tool_bounds_takes_none_from_its_approver() -> None:
    with pytest.raises(InvalidInput, match="a single call is approved with exactly its arguments"):
        parse_tool_bounds(["find-order"], None)


@given(TOOLS)
def test_written_tool_bounds_are_read_back_unchanged(tools: dict[str, Bounds]) -> None:
    whole = {name: Bounds() for name in tools}
    readable = {name: bounds for name, bounds in tools.items() if not any(bound.is_empty for bound in bounds.arguments.values())}
    read = parse_tool_bounds(format_tool_lines(readable), whole)
    assert read.keys() == readable.keys()
    for name, bounds in readable.items():
        assert not [*read[name].excess_over(bounds), *bounds.excess_over(read[name])]


@pytest.mark.parametrize("name", ["calls", "other_arguments", "arguments.calls", "arguments.amount", "arguments.arguments.x"])
def test_an_argument_whose_name_means_something_in_a_line_is_written_so_that_it_is_read_back(name: str) -> None:
    tools = {"find-order": Bounds.model_validate({"arguments": {name: {"maximum": 5}}})}
    assert parse_tool_bounds(format_tool_lines(tools), {"find-order": Bounds()}) == tools
