"""Validates values against JSON Schemas and finds the failing keywords. Takes milliseconds even for hostile values and schemas. No I/O.

Only `is_valid` of jsonschema-rs is used: collecting its errors takes time exponential in the depth of a recursive `anyOf`. schema_cost.py
finds schemas for which `is_valid` itself is slow. jsonschema-rs would fetch documents that a schema refers to, so every validator is built
offline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from jsonschema_rs import Validator

DRAFT_2020_12 = "https://json-schema.org/draft/2020-12/schema"
DRAFT_URIS = {
    jsonschema_rs.Draft4Validator: "http://json-schema.org/draft-04/schema#",
    jsonschema_rs.Draft6Validator: "http://json-schema.org/draft-06/schema#",
    jsonschema_rs.Draft7Validator: "http://json-schema.org/draft-07/schema#",
    jsonschema_rs.Draft201909Validator: "https://json-schema.org/draft/2019-09/schema",
    jsonschema_rs.Draft202012Validator: DRAFT_2020_12,
}
DEFINITIONS = ("$defs", "definitions")
JUDGING_KEYWORDS = frozenset(
    {
        *("type", "enum", "const", "format", "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"),
        *("items", "prefixItems", "additionalItems", "contains", "minItems", "maxItems", "uniqueItems"),
        *("properties", "patternProperties", "additionalProperties", "propertyNames", "required", "minProperties", "maxProperties"),
        *("dependencies", "dependentRequired", "dependentSchemas"),
    }
)
"""Keywords that can reject a value on their own. Other keywords only work together with these, or are unknown."""


class SchemaUnusable(Exception):
    """No value can be validated against the schema: it is malformed, or a reference is missing or circular."""


def build_validator(schema: Mapping[str, Any]) -> Validator:
    """Build a validator for the draft that the schema names, 2020-12 if that is missing or unknown. Raises SchemaUnusable."""
    draft = jsonschema_rs.validator_cls_for(dict(schema))
    local = {key: inner for key, inner in schema.items() if key != "$schema"}
    if any(_is_circular(local, reference) for reference in _references(local)):
        raise SchemaUnusable("a $ref refers to itself")
    try:
        return draft(local, validate_formats=False, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise SchemaUnusable(str(error)) from error


def check_schema(schema: Mapping[str, Any]) -> tuple[tuple[str | int, ...], str] | None:
    """Return the location in a schema that violates its draft, and why; None if it is valid."""
    draft = jsonschema_rs.validator_cls_for(dict(schema))
    # Set a known draft: jsonschema-rs would fetch an unknown one.
    try:
        jsonschema_rs.meta.validate({**schema, "$schema": DRAFT_URIS[draft]})
    except jsonschema_rs.ValidationError as error:
        return tuple(error.instance_path), error.message
    return None


def failing_keywords(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each keyword of a schema that rejects a value on its own, with the keyword's value."""
    shared = {key: schema[key] for key in ("$schema", *DEFINITIONS) if key in schema}
    for keyword, rule in schema.items():
        if keyword not in JUDGING_KEYWORDS:
            continue
        # `additionalProperties` depends on the listed properties.
        listed = {key: dict.fromkeys(schema[key], True) for key in ("properties", "patternProperties") if key in schema}
        beside = listed if keyword == "additionalProperties" else {}
        if fits({**shared, **beside, keyword: rule}, value):
            continue
        target = target_of(schema, rule) if keyword == "$ref" else None
        yield from failing_keywords({**shared, **target}, value) if isinstance(target, Mapping) else [(keyword, rule)]


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value matches part of a schema. True for a part that cannot be used on its own."""
    try:
        return build_validator(schema).is_valid(value)
    except (SchemaUnusable, ValueError):
        return True


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner)


def _is_circular(schema: Mapping[str, Any], reference: Any) -> bool:
    """Whether following `$ref` after `$ref` from a reference ends in a loop."""
    seen: set[str] = set()
    while isinstance(reference, str) and reference not in seen:
        seen.add(reference)
        target = target_of(schema, reference)
        reference = target.get("$ref") if isinstance(target, Mapping) else None
    return isinstance(reference, str)


def target_of(schema: Mapping[str, Any], reference: str) -> Any:
    """Return the part of a schema that `#/…` refers to; None for any other reference."""
    if not reference.startswith("#/"):
        return None
    target: Any = schema
    for part in unquote(reference).removeprefix("#/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list | tuple):
            target = target[int(key)] if key.isdecimal() and int(key) < len(target) else None
        else:
            target = target.get(key) if isinstance(target, Mapping) else None
    return target
