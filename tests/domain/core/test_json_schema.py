"""Values are validated against JSON Schemas as the drafts say, in a time that nobody who writes a value can prolong."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from justenough.domain.core.json_schema import DRAFT_URIS, SchemaUnusable, build_validator, check_schema, failing_keywords

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("justenough", "activities", "workflows", "worker", "console")
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 1.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=8,
)


def is_valid_in_time(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits, said soon."""
    began = time.monotonic()
    fits: bool = build_validator(schema).is_valid(value)
    assert time.monotonic() - began < 60
    return fits


def test_uniqueness_of_very_many_mixed_elements_is_checked_quickly() -> None:
    # Compared one with another, this would take 1.8 billion comparisons.
    many = [each for number in range(30_000) for each in (number, str(number))]
    assert is_valid_in_time({"uniqueItems": True}, many)
    assert not is_valid_in_time({"uniqueItems": True}, [*many, 7])


@pytest.mark.parametrize(
    "schema, value",
    [
        ({"pattern": r"^(\w+\s?)*$"}, "a" * 5_000 + "!"),
        ({"type": "object", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"a" * 5_000 + "!": 1}),
        (
            {"$schema": DRAFT_7, "properties": {"x": {"$ref": "#/definitions/x"}}, "definitions": {"x": {"pattern": "^(a|a)*$"}}},
            {"x": "a" * 5_000 + "!"},
        ),
        ({"$schema": DRAFT_7, "properties": {"in": {"$ref": "#"}, "x": {"pattern": "^(a|a)*$"}}}, {"in": {"x": "a" * 5_000 + "!"}}),
    ],
    ids=["pattern", "names", "reference", "whole"],
)
def test_no_text_keeps_a_pattern_searching(schema: dict[str, Any], value: Any) -> None:
    assert not is_valid_in_time(schema, value)


def test_a_recursive_union_takes_no_time_to_refuse_or_to_name() -> None:
    nested = {"type": "array", "items": {"$ref": "#/$defs/n"}}
    schema = {"properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"anyOf": [nested, {**nested, "minItems": 1}]}}}
    value: Any = 1.5
    for _ in range(60):
        value = [value]
    assert not is_valid_in_time(schema, {"x": value})
    began = time.monotonic()
    assert [keyword for keyword, _ in failing_keywords(schema, {"x": value})] == ["properties"]
    assert time.monotonic() - began < 60


def test_no_code_of_the_product_collects_all_errors_of_a_value_against_a_schema() -> None:
    sources = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert len(sources) > 100
    collecting = re.compile(
        r"iter_errors|validator\.evaluate|validator\.validate|jsonschema(?:_rs)?\.validate|session\.call_tool\(|^(?:import|from) jsonschema\b",
        re.MULTILINE,
    )
    assert collecting.findall("from jsonschema import validate\nfor error in validator.iter_errors(1): ...")
    # `meta.validate` is fine: it checks schemas against those of the drafts, which have no union that explodes.
    assert [path.name for path in sources if collecting.search(path.read_text().replace("Not `session.call_tool`", ""))] == []


@pytest.mark.parametrize("keyword", ["items", "not", "dependencies", "additionalProperties"])
@pytest.mark.parametrize("draft", DRAFT_URIS.values())
def test_an_invalid_schema_is_found_at_once_however_deep(draft: str, keyword: str) -> None:
    schema: dict[str, Any] = {"type": "integr"}
    for _ in range(30):
        schema = {keyword: {"a": schema} if keyword == "dependencies" else schema}
    began = time.monotonic()
    assert check_schema({**schema, "$schema": draft}) is not None
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "schema, value, keywords",
    [
        ({"type": "object", "required": ["a"]}, {}, ["required"]),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"a": 1}, []),
        ({"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": False}, {"b": 1}, ["additionalProperties"]),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, []),
        ({"$schema": DRAFT_7, "definitions": {"n": {"type": "integer"}}, "allOf": [{"$ref": "#/definitions/n"}]}, "7", ["allOf"]),
        ({"not": {"$ref": "#/properties/a"}, "properties": {"a": {}}, "maximum": 3}, 7, ["maximum"]),
    ],
)
def test_the_keywords_that_reject_a_value_by_themselves_are_named(schema: dict[str, Any], value: Any, keywords: list[str]) -> None:
    assert [keyword for keyword, _ in failing_keywords(schema, value)] == keywords


def test_keywords_that_no_draft_has_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take a validator with all definitions."""
    tried: list[str] = []

    def fits(schema: dict[str, Any], value: Any) -> bool:
        tried.extend(schema.keys() - {"$defs"})
        return build_validator(schema).is_valid(value)

    monkeypatch.setattr("justenough.domain.core.json_schema.fits", fits)
    schema = {**{f"x{number}": {} for number in range(100)}, "$defs": {"d": {}}, "type": "string", "minimum": 1}
    assert [keyword for keyword, _ in failing_keywords(schema, 7)] == ["type"]
    assert tried == ["type", "minimum"]


@pytest.mark.parametrize(
    "schema", [{"$ref": "{}/schema"}, {"items": {"$schema": "{}/draft", "$ref": "{}/schema"}}, {"properties": {"a": {"$ref": "#/$defs/a"}}}]
)
def test_a_reference_to_another_document_is_an_error_and_is_not_fetched(schema: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SchemaUnusable):
            build_validator(json.loads(json.dumps(schema).replace("{}/", f"{address}/")))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_unknown_draft_is_treated_as_the_default_and_is_not_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        schema = {"$schema": f"http://127.0.0.1:{server.getsockname()[1]}/draft", "type": "integr"}
        assert check_schema(schema) is not None
        assert check_schema({**schema, "type": "integer"}) is None
        assert build_validator({**schema, "type": "integer"}).is_valid(7)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    "pattern, text, fits",
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        (r"^\d+$", "12", True),
        (r"^\d+$", "12\n", False),
        ("^(?!a)", "b", True),
        ("^(?!a)", "a", False),
    ],
)
def test_a_pattern_matches_anywhere_in_a_text_and_may_use_lookaround(pattern: str, text: str, fits: bool) -> None:
    assert build_validator({"pattern": pattern}).is_valid(text) is fits


@settings(deadline=None)
@given(st.lists(JSON, max_size=6))
def test_uniqueness_is_decided_as_jsonschema_decides_it(values: list[Any]) -> None:
    schema = {"uniqueItems": True}
    assert build_validator(schema).is_valid(values) is Draft202012Validator(schema).is_valid(values)


@settings(deadline=None)
@given(JSON, st.sampled_from([True, False, {"type": "integer"}]), st.sampled_from([DRAFT_7, None]))
def test_properties_are_accepted_exactly_as_jsonschema_accepts_them(value: Any, more: Any, draft: str | None) -> None:
    schema = {"properties": {"a": {"type": "string"}}, "patternProperties": {"^c": {}}, "additionalProperties": more}
    stock = Draft7Validator if draft else Draft202012Validator
    assert build_validator({**schema, **({"$schema": draft} if draft else {})}).is_valid(value) is stock(schema).is_valid(value)
