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

from justenough.domain.core.canonical_json import canonical


def validator_of(schema: Mapping[str, Any]) -> Validator:
    """Return what holds values against a schema, by the draft that it names, else by 2020-12."""
    stock = validator_for(schema, default=Draft202012Validator)
    # Without the draft's name: jsonschema would go back to its own at each reference to the whole.
    found: Validator = _bounded(stock)({key: inner for key, inner in schema.items() if key != "$schema"})
    return found


@lru_cache(maxsize=16)
def _bounded(stock: Any) -> Any:
    ours = {"uniqueItems": _unique, "pattern": _pattern, "patternProperties": _by_pattern, "additionalProperties": _additional}
    return extend(stock, ours)  # type: ignore[no-untyped-call] # the stubs leave it out


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if wanted and validator.is_type(instance, "array") and len({canonical(each) for each in instance}) < len(instance):
        yield ValidationError("has elements that are the same")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if validator.is_type(instance, "string") and not _finder(pattern)(instance):
        yield ValidationError("does not match its pattern")


def _by_pattern(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    for pattern, inner in patterns.items() if validator.is_type(instance, "object") else ():
        for name, value in instance.items():
            if _finder(pattern)(name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional(validator: Any, wanted: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    listed, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    more = [name for name in instance if name not in listed and not any(_finder(pattern)(name) for pattern in patterns)]
    if validator.is_type(wanted, "object"):
        for name in more:
            yield from validator.descend(instance[name], wanted, path=name)
    elif not wanted and more:
        yield ValidationError("has properties that are not listed")


@lru_cache(maxsize=1_000)
def _finder(pattern: str) -> Callable[[str], object]:
    """Return what finds a pattern in a text: by an engine that never goes back, where it knows all that the pattern says."""
    try:
        adapter = TypeAdapter[str](Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError:
        # It looks around, or refers back. Those who review such a pattern must see to it that it comes to an end.
        return re.compile(pattern).search

    def found(text: str) -> bool:
        try:
            adapter.validate_python(text)
        except NoMatch:
            return False
        return True

    return found
