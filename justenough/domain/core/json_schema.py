"""Holds values against JSON Schemas in a time that grows with what is held against them, whatever a stranger puts there. No I/O.

jsonschema compares each element with each for `uniqueItems`, and has Python search for a `pattern`, which can take years: both would stop
the whole worker, for one of its jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from pydantic import StringConstraints, TypeAdapter
from pydantic import ValidationError as NoMatch
from pydantic_core import SchemaError

from justenough.domain.core.canonical_json import to_canonical_json


def build_validator(schema: Mapping[str, Any]) -> Validator:
    """Return what holds values against a schema, by the draft that it names, else by 2020-12."""
    stock = validator_for(schema, default=Draft202012Validator)
    # Without the draft's name: jsonschema would go back to its own at each reference to the whole.
    found: Validator = _bounded_validator_class(stock)({key: inner for key, inner in schema.items() if key != "$schema"})
    return found


@lru_cache(maxsize=16)
def _bounded_validator_class(stock: Any) -> Any:
    ours = {
        "uniqueItems": _check_unique_items,
        "pattern": _check_pattern,
        "patternProperties": _check_pattern_properties,
        "additionalProperties": _check_additional_properties,
    }
    return extend(stock, ours)  # type: ignore[no-untyped-call] # the stubs leave it out


def _check_unique_items(validator: Any, is_required: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if is_required and validator.is_type(instance, "array") and len({to_canonical_json(each) for each in instance}) < len(instance):
        yield ValidationError("has elements that are the same")


def _check_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if validator.is_type(instance, "string") and not _build_finder(pattern)(instance):
        yield ValidationError("does not match its pattern")


def _check_pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    for pattern, inner in patterns.items() if validator.is_type(instance, "object") else ():
        for name, value in instance.items():
            if _build_finder(pattern)(name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _check_additional_properties(validator: Any, rule: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    listed, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    more = [name for name in instance if name not in listed and not any(_build_finder(pattern)(name) for pattern in patterns)]
    if validator.is_type(rule, "object"):
        for name in more:
            yield from validator.descend(instance[name], rule, path=name)
    elif not rule and more:
        yield ValidationError("has properties that are not listed")


@lru_cache(maxsize=1_000)
def _build_finder(pattern: str) -> Callable[[str], object]:
    """Return what finds a pattern in a text: by an engine that never goes back, where it knows all that the pattern says."""
    try:
        adapter = TypeAdapter[str](Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError:
        # It looks around, or refers back. Those who review such a pattern must see to it that it comes to an end.
        return re.compile(pattern).search

    def matches(text: str) -> bool:
        try:
            adapter.validate_python(text)
        except NoMatch:
            return False
        return True

    return matches
