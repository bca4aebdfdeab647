"""Strangers' YAML: JSON's types only, every problem by its path, and nothing but a refusal for whatever else it is."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.domain.core import untrusted_yaml
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.untrusted_yaml import MAX_BYTES, MAX_SAFE_INTEGER, check_json, read_yaml, to_yaml_path

QUICK = 5.0
"""Seconds: what is refused must not be looked at for long. Generous, as test machines are slow and shared."""


def why_refused(text: str | bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_yaml("input", text)
    return str(caught.value)


@pytest.mark.parametrize(
    "text, value",
    [
        ("a: 1", {"a": 1}),
        ("a: -7", {"a": -7}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 1.5e+3", {"a": 1500.0}),
        ("a: true", {"a": True}),
        ("a: ~\nb: null\nc:", {"a": None, "b": None, "c": None}),
        ("[a, [b], {c: d}]", ["a", ["b"], {"c": "d"}]),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        # Text that YAML 1.1 would convert stays as it was written.
        ("on: yes", {"on": "yes"}),
        ("a: off", {"a": "off"}),
        ("a: 017", {"a": "017"}),
        ("a: 0x1F", {"a": "0x1F"}),
        ("a: 22:30:45", {"a": "22:30:45"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12e5", {"a": "12e5"}),
        ("a: 2026-01-31", {"a": "2026-01-31"}),
        ("a: =", {"a": "="}),
        ("1: a\ntrue: b\nnull: c", {"1": "a", "true": "b", "null": "c"}),
        ("", None),
        ("\ufeffa: é🎉", {"a": "é🎉"}),
    ],
)
def test_plain_yaml_is_read_as_its_value(text: str, value: Any) -> None:
    assert read_yaml("input", text) == value


@pytest.mark.parametrize(
    "text, why",
    [
        ("a: &x [1]", "anchors and aliases"),
        ("a: *x", "anchors and aliases"),
        ("<<: {a: 1}", "plain text"),
        ("? [a]\n: b", "plain text"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: duplicate key 'a'"),
        ("a: {b: 1, 'b': 2}", "duplicate key"),
        ("a: !!python/object/apply:os.system [id]", "tags"),
        ("a: !!binary aGk=", "tags"),
        ("a: !!float ''", "tags"),
        ("a: !!bool maybe", "tags"),
        ("a: !x 1", "tags"),
        ("a: [1", "line 1, column 6"),
        ("a: b: c", "line 1"),
        ("a: 1\n---\nb: 2", "another document"),
        ('a: "\\ud800"', "cannot be stored"),
        ('a: "\\0"', "cannot be stored"),
        ('"a\\0": 1', "cannot be stored"),
        (f"a: {MAX_SAFE_INTEGER + 1}", "too large"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 1.0e+400", "must be a finite number"),
        ("a: 1.3e+16", "too large"),
        (b"a: \xff", "not UTF-8 text (byte 3)"),
        (b"\x00\x01\x02", "not allowed"),
        (b"\x7fELF\x02\x01\x01", "input"),
        ("\t", "line 1"),
    ],
)
def test_yaml_beyond_plain_json_types_is_refused_with_a_reason(text: str | bytes, why: str) -> None:
    assert why in why_refused(text)


def bomb(levels: int) -> str:
    lines = ['a0: &a0 ["lol", "lol"]', *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(bomb(30), id="billion laughs"),
        pytest.param("a: " + "x" * MAX_BYTES, id="too long"),
        pytest.param(b"a" * 1024 * 1024 * 64, id="64 MB"),
        pytest.param("[" * 100_000, id="brackets"),
        pytest.param("[" * 100 + "]" * 100, id="deep"),
        pytest.param("- " * 100_000, id="dashes"),
        pytest.param("[" + "[]," * 80_000 + "]", id="many lists"),
        pytest.param("{" + ",".join(f"k{n}: {{}}" for n in range(20_000)) + "}", id="many maps"),
        pytest.param("? " * 100_000, id="questions"),
        pytest.param("a: !!int " + "1:" * 100_000 + "1", id="sexagesimal"),
    ],
)
def test_bombs_are_refused_quickly(text: str | bytes) -> None:
    started = time.process_time()
    assert why_refused(text)
    assert time.process_time() - started < QUICK


ODD_TEXTS = st.text(alphabet="{}[]:,-?!&*#|>'\"%@`~<= \n\tab01.", max_size=80)


@given(ODD_TEXTS)
def test_both_parsers_read_alike_what_both_accept(text: str) -> None:
    """libyaml accepts a few texts more, such as tabs within plain text."""
    read = []
    for loader in (untrusted_yaml._FastLoader, untrusted_yaml._ExactLoader):
        with suppress(yaml.YAMLError, ValueError):
            read.append(yaml.load(text, Loader=loader))  # noqa: S506 - safe loaders
    assert len({repr(value) for value in read}) <= 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300) | ODD_TEXTS)
def test_no_bytes_raise_anything_but_invalid_input(text: str | bytes) -> None:
    try:
        value = read_yaml("input", text)
    except InvalidInput as error:
        value = [str(problem) for problem in error.problems]
        assert value
    check_json("input", value)
    to_canonical_json(value)


def yaml_values(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = yaml_values(
    st.none() | st.booleans() | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.floats(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | text
)


@settings(deadline=None)
@given(values)
def test_plain_json_written_as_yaml_is_read_back(value: Any) -> None:
    assert read_yaml("input", yaml.safe_dump(value, allow_unicode=False)) == value


@given(values)
def test_the_canonical_form_is_json_that_says_the_same_whatever_the_order_of_keys(value: Any) -> None:
    form = to_canonical_json(value)
    assert json.loads(form) == value
    assert to_canonical_json(json.loads(form)) == form
    assert to_canonical_json(_reverse_keys(value)) == form


def _reverse_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reverse_keys(inner) for key, inner in reversed(value.items())}
    return [_reverse_keys(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {"a": b"x"}, [object()], {"a": float("nan")}, {"a": (1,)}, {"a": 2**60}, 1.3e16])
def test_values_that_json_cannot_represent_exactly_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        check_json("input", value)


def test_problems_of_a_value_name_their_path() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_json("input", {"a": [1, {"b": float("inf")}], "c": "\0"})
    assert [problem.path for problem in caught.value.problems] == ["a[1].b", "c"]
    assert to_yaml_path(("access", 0, "deliver", "env", "PGUSER")) == "access[0].deliver.env.PGUSER"


def test_at_most_a_hundred_problems_of_a_value_are_reported() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_json("input", ["\0"] * 1_000_000)
    assert len(caught.value.problems) == 100


def test_a_long_key_is_not_repeated_whole_for_each_problem_below_it() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_json("input", {"k" * 100_000: ["\0"] * 1_000})
    assert [problem.path for problem in caught.value.problems[:2]] == ["k" * 64 + "[0]", "k" * 64 + "[1]"]
