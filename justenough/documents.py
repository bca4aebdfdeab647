"""Reads YAML that strangers wrote: JSON's types only, bounded, no aliases, no duplicate keys; every problem by its path. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from justenough.errors import InvalidInput, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
SAFE_INTEGER = 2**53 - 1

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without aliases, without timestamps, and with duplicate keys refused."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "keys must be plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


# Timestamps stay text: what is signed is JSON, and JSON has none.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(what: str, text: str | bytes) -> Any:
    """Return the JSON value that a YAML text holds. Raises InvalidInput, naming line and column where YAML itself is wrong."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise InvalidInput(what, (Problem("", f"{len(raw):,} bytes; at most {MAX_BYTES:,} are accepted"),))
    try:
        value = yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader, narrowed above
    except UnicodeDecodeError as error:
        raise InvalidInput(what, (Problem("", f"not UTF-8 text (byte {error.start})"),)) from error
    except RecursionError as error:
        raise InvalidInput(what, (Problem("", "nested too deeply"),)) from error
    except ValueError as error:
        raise InvalidInput(what, (Problem("", f"not readable as YAML: {error}"),)) from error
    except yaml.YAMLError as error:
        raise InvalidInput(what, (Problem("", _where(error)),)) from error
    check_json(what, value)
    return value


def check_json(what: str, value: Any) -> None:
    """Raise InvalidInput where a value is not plain JSON that every reader reads alike (I-JSON: RFC 7493)."""
    problems = tuple(_unlike_json(value, "", 0))
    if problems:
        raise InvalidInput(what, problems)


def validated(what: str, model: type[M], value: Any) -> M:
    """Return the model that a value describes; raise InvalidInput with every problem, by YAML path."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(what, tuple(_problem(item) for item in error.errors(include_url=False, include_input=False))) from error


def path_of(location: Iterable[str | int]) -> str:
    """Return a location as a YAML path: `("access", 0, "ttl")` → `access[0].ttl`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _problem(item: Any) -> Problem:
    known = {"extra_forbidden": "unknown key", "missing": "required"}
    message = known.get(item["type"]) or item["msg"].removeprefix("Value error, ")
    return Problem(path_of(part for part in item["loc"] if part != "[key]"), message)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _unlike_json(value: Any, path: str, depth: int) -> Iterable[Problem]:
    if depth > MAX_DEPTH:
        yield Problem(path, "nested too deeply")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _unlike_json(key, path, depth + 1)
            yield from _unlike_json(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unlike_json(inner, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" or character == "\0" for character in value):
            yield Problem(path, "text with characters that cannot be stored")
    elif isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            yield Problem(path, "a number too large to be exact")
    elif isinstance(value, float):
        if value != value or value in {float("inf"), float("-inf")}:
            yield Problem(path, "not a number")
    elif value is not None:
        yield Problem(path, f"{type(value).__name__} is not allowed; use text")
