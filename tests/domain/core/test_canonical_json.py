"""Canonical JSON is what rfc8785 writes and refuses, also for plain values, which Python encodes faster."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.canonical_json import to_canonical_json
from tests.domain.core.test_untrusted_yaml import yaml_values


class Color(str, enum.Enum):  # noqa: UP042 - its hash differs from its text's
    RED = "red"


INTEGERS = st.integers(-(2**54), 2**54) | st.sampled_from([2**53 - 1, 2**53, 1 - 2**53, -(2**53), 10**16])
# Keys that UTF-16 and Python sort differently, and what only one of the two encoders may escape or refuse.
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["\ufb33", "\U0001f600", "\ud7ff", "\ue000", "\ud800", "\x7f", "\u2028", "\x1f", "", "1" * 20]
)
LEAVES = st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS


def outcome(function: Any, value: Any) -> bytes | type[Exception]:
    try:
        return bytes(function(value))
    except ValueError as error:
        return type(error)


@given(yaml_values(LEAVES) | st.dictionaries(TEXTS, LEAVES, max_size=6))
def test_any_value_is_written_or_refused_as_rfc8785_does(value: Any) -> None:
    assert outcome(to_canonical_json, value) == outcome(rfc8785.dumps, value)


@pytest.mark.parametrize(
    "value",
    [
        {1: "a"}, {"a": {None: 1}}, {True: 1}, {1.5: 1}, (1, (2,)), [(1,)], {"a": {1, 2}}, [b"x"], [object()], [1.0], [-0.0], [1e21], [5e-324],
        {"\ufb33": 1, "\U0001f600": 2}, {"a": "\ud800"}, {"\ud800": 1}, [Color.RED], {Color.RED: Color.RED}, Color.RED, [2**53], [2**53 - 1],
        ["2026-01-31T09:30:00.123456Z"], ["1.5"], {"b": 1, "a": {"d": [], "c": {}}}, ["\x00\x1f\x7f\u2028é/\\\"\b\f\n\r\t"], "", 0, None,
    ],
)  # fmt: skip
def test_odd_values_are_written_or_refused_as_rfc8785_does(value: Any) -> None:
    assert outcome(to_canonical_json, value) == outcome(rfc8785.dumps, value)


def test_a_value_that_is_nested_too_deeply_for_rfc8785_raises_what_it_raises() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RecursionError):
        to_canonical_json(value)
