"""Reads YAML that strangers wrote: JSON's types only, bounded, no aliases, no tags, no duplicate keys; every problem by its path. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from justenough.domain.core.errors import InvalidInput, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_PROBLEMS = 100
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
MAX_SAFE_INTEGER = 2**53 - 1

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, without anchors, aliases and tags; every key is its own text and there once; bounded in work."""

    nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call] # the stubs leave it out
        self.nodes += 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _yaml_error("anchors and aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _yaml_error("tags are not allowed", event.start_mark)
        if self.nodes > MAX_NODES:
            raise _yaml_error(f"more than {MAX_NODES:,} values", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise _yaml_error("nested too deeply", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or (key.value == "<<" and key.style is None):
                raise _yaml_error("keys must be plain text", key.start_mark)
            if key.value in mapping:
                raise _yaml_error(f"key {key.value!r} is there twice", key.start_mark)
            mapping[key.value] = self.construct_object(value, deep=deep)
        return mapping


def _yaml_error(why: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, mark)


# The words and numbers of YAML 1.2's core schema, decimal only: `on`, `yes`, `017`, `1e5`, `12:30` and dates stay text, as people mean them.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read_yaml(what: str, text: str | bytes) -> Any:
    """Return the JSON value that a YAML text holds. Raises InvalidInput, naming line and column where YAML itself is wrong."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise InvalidInput(what, (Problem("", f"at most {MAX_BYTES:,} bytes are accepted"),))
    try:
        value = yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader, narrowed above
    except UnicodeDecodeError as error:
        raise InvalidInput(what, (Problem("", f"not UTF-8 text (byte {error.start})"),)) from error
    except ValueError as error:
        raise InvalidInput(what, (Problem("", f"not readable as YAML: {error}"),)) from error
    except yaml.YAMLError as error:
        raise InvalidInput(what, (Problem("", _yaml_error_text(error)),)) from error
    check_json(what, value)
    return value


def check_json(what: str, value: Any) -> None:
    """Raise InvalidInput where a value is not plain JSON that every reader reads alike (I-JSON: RFC 7493)."""
    problems = tuple(islice(_json_problems(value, "", 0), MAX_PROBLEMS))
    if problems:
        raise InvalidInput(what, problems)


def validate_model(what: str, model: type[M], value: Any) -> M:
    """Return the model that a value describes; raise InvalidInput with every problem, by YAML path."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(what, tuple(_to_problem(item) for item in error.errors(include_url=False, include_input=False))) from error


def to_yaml_path(location: Iterable[str | int]) -> str:
    """Return a location as a YAML path: `("access", 0, "ttl")` → `access[0].ttl`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _to_problem(item: Any) -> Problem:
    known = {"extra_forbidden": "unknown key", "missing": "required"}
    message = known.get(item["type"]) or item["msg"].removeprefix("Value error, ")
    return Problem(to_yaml_path(part for part in item["loc"] if part != "[key]"), message)


def _yaml_error_text(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _json_problems(value: Any, path: str, depth: int) -> Iterable[Problem]:
    if depth > MAX_DEPTH:
        yield Problem(path, "nested too deeply")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _json_problems(key, path, depth + 1)
            yield from _json_problems(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _json_problems(inner, f"{path}[{index}]", depth + 1)
    else:
        why = _scalar_problem(value)
        if why:
            yield Problem(path, why)


def _scalar_problem(value: Any) -> str | None:
    match value:
        case None | bool():
            return None
        case str():
            return "text with characters that cannot be stored" if UNSTORABLE.search(value) else None
        case float() if not math.isfinite(value):
            return "not a number"
        case int() | float():
            # A larger float would be written without a point, and read back as an integer that is not exact.
            return None if abs(value) <= MAX_SAFE_INTEGER else "a number too large to be exact"
    return f"{type(value).__name__} is not allowed; use text"
