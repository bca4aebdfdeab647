"""Schemas that would keep a validator busy are found, with the place; schemas that people write are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from justenough.domain.core.json_schema import build_validator, check_schema
from justenough.domain.core.schema_cost import (
    LARGE_PATTERN,
    MAX_OPEN,
    NOT_FOLLOWED,
    OWN_ID,
    SLOW_PATTERN,
    TOO_DEEP,
    TOO_MANY,
    expensive_part,
    pattern_states,
)

ROOT, N = {"$ref": "#"}, {"$ref": "#/$defs/n"}
EXAMPLE = Path(__file__).parents[3] / "examples"


def doubled(levels: int, keyword: str, leaf: Any, **more: Any) -> dict[str, Any]:
    """Definitions that each refer twice to the next one."""
    names = {f"d{level}": {keyword: [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**names, f"d{levels}": leaf}, **more}


def layered(levels: int) -> dict[str, Any]:
    """A schema in which each level closes the object again."""
    schema: dict[str, Any] = {"properties": {"a": {}}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


def mutual(kinds: int) -> dict[str, Any]:
    """Kinds of objects, each of which may contain all the others in two ways."""
    references = [{"$ref": f"#/$defs/k{kind}"} for kind in range(kinds)]
    kind = {"type": "object", "properties": {"one": {"anyOf": references}, "other": {"anyOf": references}}}
    return {"anyOf": references, "$defs": {f"k{number}": dict(kind) for number in range(kinds)}}


@pytest.mark.parametrize(
    "schema, place, why",
    [
        # Each of these took `is_valid` more than three seconds with arguments of at most 32 KB.
        (doubled(28, "allOf", {"required": ["a"]}), ("$defs", "d16"), TOO_MANY),
        (doubled(28, "oneOf", {"required": ["a"]}), ("$defs", "d16"), TOO_MANY),
        (doubled(28, "anyOf", {"required": ["a"]}), ("$defs", "d16"), TOO_MANY),
        (doubled(16, "allOf", {"properties": {"a": {"$ref": "#/$defs/d0"}}}), ("$defs", "d5"), TOO_MANY),
        (doubled(8, "allOf", {"items": {"$ref": "#/$defs/d0"}}), ("$defs", "d5"), TOO_MANY),
        (doubled(16, "allOf", {"properties": {"a": {}}}, unevaluatedProperties=False), ("$defs", "d5"), TOO_MANY),
        (layered(20), ("allOf", 0) * 15, TOO_MANY),
        ({"pattern": "[ab]*a[ab]{20000}[c-z]"}, ("pattern",), LARGE_PATTERN),
        ({"properties": {"a": {"pattern": "((a{10}){10}){10}"}}}, ("properties", "a", "pattern"), LARGE_PATTERN),
        ({"pattern": "[" * 20_000 + "]"}, ("pattern",), LARGE_PATTERN),
        ({"allOf": [{"pattern": f"[ab]*a[ab]{{{400 + number}}}"} for number in range(20)]}, (), TOO_MANY),
        ({"allOf": [{"uniqueItems": True, "maxItems": number} for number in range(9_900)]}, (), TOO_MANY),
        ({"anyOf": [{"$ref": "#/$defs/e"}] * 1_500, "$defs": {"e": {"enum": [*range(5_000)]}}}, (), TOO_MANY),
        (mutual(20), ("$defs", "k0"), TOO_MANY),
        ({"items": {"not": {"pattern": r"^((a|a)*)\1$"}}}, ("items", "not", "pattern"), SLOW_PATTERN),
        ({"patternProperties": {r"^(a*)*\1b$": {}}}, ("patternProperties", r"^(a*)*\1b$"), SLOW_PATTERN),
        ({"pattern": "^((?=a)a|a)*$"}, ("pattern",), SLOW_PATTERN),
        ({"pattern": "(?=.*x)y"}, ("pattern",), SLOW_PATTERN),
        ({"pattern": "(?<!b)(a+)+$"}, ("pattern",), SLOW_PATTERN),
        ({"pattern": "^(?=.*x)y|(?=.*x)z"}, ("pattern",), SLOW_PATTERN),
        # The cost of these cannot be told.
        ({"allOf": [{"$ref": "#/$defs/none"}]}, ("allOf", 0, "$ref"), NOT_FOLLOWED),
        ({"properties": {"a": {"$dynamicRef": "#none"}}}, ("properties", "a", "$dynamicRef"), NOT_FOLLOWED),
        ({"properties": {"a": {"$id": "https://example.org/a", "$ref": "#/$defs/n", "$defs": {"n": {}}}}}, ("properties", "a"), OWN_ID),
    ],
)  # fmt: skip
def test_a_schema_that_keeps_a_validator_busy_is_found_with_its_place(
    schema: dict[str, Any], place: tuple[str | int, ...], why: str
) -> None:
    assert expensive_part(schema) == (place, why)


def test_references_that_lead_from_one_to_the_next_are_followed_to_a_limit() -> None:
    def chain(length: int) -> dict[str, Any]:
        names = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(length)}
        return {"$ref": "#/$defs/d0", "$defs": {**names, f"d{length}": {}}}

    assert expensive_part(chain(MAX_OPEN // 2)) is None
    assert (expensive_part(chain(20_000)) or ((), ""))[1] == TOO_DEEP
    unreached = chain(3_000)
    del unreached["$ref"]
    assert (expensive_part(unreached) or ((), ""))[1] == TOO_DEEP


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,32}$", "enum": ["a", "b"]}}},
        {"anyOf": [{"type": "array", "items": ROOT}, {"type": "array", "items": ROOT, "minItems": 1}]},
        {"$dynamicAnchor": "n", "anyOf": [{"type": "array", "items": {"$dynamicRef": "#n"}}, {"type": "number"}]},
        {"properties": {"a": {"$ref": "#item"}}, "$defs": {"i": {"$anchor": "item", "type": "string"}}},
        {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": N}}], "unevaluatedProperties": False, "$defs": {"n": {}}},
        {"$ref": "#/allOf/1", "allOf": [True, {"type": "object"}]},
        {"properties": {f"p{number}": {"anyOf": [{"type": "string"}, {"type": "null"}]} for number in range(500)}},
        {"items": {"anyOf": [{"properties": {"kind": {"const": kind}, "children": {"items": ROOT}}} for kind in range(30)]}},
        mutual(3),
        {"properties": {"pattern": {"type": "string"}, "$id": {"type": "string"}}, "default": {"$ref": "nowhere", "pattern": "(?<!a)b"}},
        {"pattern": r"^(?!.*\.\.)[a-z/]+$"},
        {"pattern": r"^(?=.*[A-Z|])(?=.*\d)(a|b).{8,}$"},
        {"pattern": "^(a+)+$"},
    ],
)  # fmt: skip
def test_ordinary_schemas_are_not_reported_as_expensive(schema: dict[str, Any]) -> None:
    assert check_schema(schema) is None
    assert expensive_part(schema) is None
    build_validator(schema)


@pytest.mark.parametrize(
    "pattern, states",
    [
        ("", 0),
        ("abc", 3),
        ("a{3}", 3),
        ("a{2,5}", 5),
        ("a{3,}", 3),
        ("a{ 2 , 5 }", 5),
        ("(?x) (a{400}) {400}", 501),
        ("(?i-sx:a)", 501),
        ("(?<x>a)", 5),
        ("a{0}", 1),
        ("[a-z]{4}-[^]x]{2}", 7),
        (r"\{5}\d{2}", 5),
        ("(?:ab){3}c", 13),
        ("(a(b{2}){3}){4}", 28),
        ("a)b(c", 4),
        ("a" * 1_001, 501),
    ],
)
def test_the_states_of_a_pattern_are_counted_with_repetitions_written_out(pattern: str, states: int) -> None:
    assert pattern_states(pattern) == states


def test_the_schemas_of_the_examples_are_not_reported_as_expensive() -> None:
    catalogs = [yaml.safe_load(path.read_text()) for path in EXAMPLE.rglob("catalog.yaml")]
    schemas = [tool["input"] for catalog in catalogs for tool in catalog.get("tools", {}).values() if "input" in tool]
    assert schemas
    assert [json.dumps(schema) for schema in schemas if expensive_part(schema)] == []
