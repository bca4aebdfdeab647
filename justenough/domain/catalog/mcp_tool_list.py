"""What an MCP server says of its tools, as it was reviewed and as it is now: read, bounded, in one canonical form, compared. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.untrusted_yaml import MAX_SAFE_INTEGER, check_json

TOOLS_KEY = "tools"
"""The key of a list; and the folder beside the catalog that holds what was reviewed, `tools/<name>.json`."""
MAX_TOOLS = 500
"""Of one server."""
MAX_LIST_BYTES = 1024 * 1024
"""Of a list's canonical form."""
MAX_NAME_CHARS = 256
MAX_NUMBER = 1e300
"""Of numbers: RFC 8785 writes each as the double that is next to it."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """One tool as its server tells of it: everything of it that a model or a person is told."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as MCP writes it; what is empty is left out."""
        told = {"title": self.title, "description": self.description, "annotations": dict(self.annotations)}
        return {"name": self.name, "inputSchema": dict(self.schema), **{key: value for key, value in told.items() if value}}


@dataclass(frozen=True)
class ToolList:
    """A server's tools, by name."""

    tools: tuple[ListedTool, ...]

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the list's RFC 8785 form, sorted by name: in which order a server tells of them is no change."""
        return digest_of([one.as_json() for one in self.tools])

    @property
    def text(self) -> str:
        """What is kept beside the catalog: JSON that people can read and compare line by line."""
        return json.dumps({"tools": [one.as_json() for one in self.tools]}, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def build_tool_list(what: str, raw: Iterable[Any]) -> ToolList:
    """Return a server's tools, as a list of MCP's `Tool` objects says them. Raises InvalidInput with everything that is wrong, by place."""
    given = [_as_doubles(one) for one in raw]
    if len(given) > MAX_TOOLS:
        raise InvalidInput(what, (Problem(TOOLS_KEY, f"{len(given)} tools; at most {MAX_TOOLS} are accepted"),))
    check_json(what, _without_large(given))
    problems = tuple(problem for index, one in enumerate(given) for problem in _tool_problems(one, f"{TOOLS_KEY}[{index}]"))
    names = [one["name"] for one in given] if not problems else []
    problems += tuple(Problem(TOOLS_KEY, f"{name!r} is there twice") for name in sorted({name for name in names if names.count(name) > 1}))
    if problems:
        raise InvalidInput(what, problems)
    found = ToolList(tuple(sorted(map(_to_listed_tool, given), key=lambda one: one.name)))
    if len(to_canonical_json([one.as_json() for one in found.tools])) > MAX_LIST_BYTES:
        raise InvalidInput(what, (Problem(TOOLS_KEY, f"more than {MAX_LIST_BYTES:,} bytes"),))
    return found


def read_tool_list(what: str, text: str | bytes) -> ToolList:
    """Return the list that a JSON text holds: `{"tools": […]}`, as MCP's `tools/list` answers. Raises InvalidInput."""
    try:
        raw = json.loads(text, object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(what, (Problem("", f"is no JSON that is read here: {error}"),)) from error
    found = raw.get("result", raw) if isinstance(raw, dict) else raw
    if not isinstance(found, dict) or not isinstance(found.get(TOOLS_KEY), list):
        raise InvalidInput(what, (Problem("", 'must be like {"tools": […]}, as MCP answers tools/list'),))
    if found.get("nextCursor"):
        raise InvalidInput(what, (Problem("nextCursor", "there is more: this is one page of the list"),))
    return build_tool_list(what, found[TOOLS_KEY])


def tool_list_changes(reviewed: ToolList | None, current: ToolList) -> Iterator[str]:
    """Yield, tool by tool, how what a server shows differs from what was reviewed: `get_issue: description, inputSchema`, `new: drop_all`."""
    before, after = ({one.name: one.as_json() for one in found.tools} if found else {} for found in (reviewed, current))
    yield from (f"gone: {name}" for name in sorted(before.keys() - after.keys()))
    yield from (f"new: {name}" for name in sorted(after.keys() - before.keys()))
    for name in sorted(before.keys() & after.keys()):
        parts = sorted(key for key in before[name].keys() | after[name].keys() if before[name].get(key) != after[name].get(key))
        if parts:
            yield f"{name}: {', '.join(parts)}"


def _to_listed_tool(raw: Mapping[str, Any]) -> ListedTool:
    return ListedTool(
        name=raw["name"],
        description=raw.get("description") or "",
        schema=raw["inputSchema"],
        title=raw.get("title") or "",
        annotations={key: value for key, value in (raw.get("annotations") or {}).items() if value is not None},
    )


def _tool_problems(raw: Any, where: str) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield Problem(where, "must be an object")
        return
    name = raw.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
        yield Problem(f"{where}.name", f"must be text of at most {MAX_NAME_CHARS} characters")
    if not isinstance(raw.get("inputSchema"), dict):
        yield Problem(f"{where}.inputSchema", "must be an object")
    for key, kind, told in (("title", str, "text"), ("description", str, "text"), ("annotations", dict, "an object")):
        if raw.get(key) is not None and not isinstance(raw[key], kind):
            yield Problem(f"{where}.{key}", f"must be {told}")


def _as_doubles(value: Any) -> Any:
    """Return a JSON value whose numbers are those that RFC 8785 knows: a schema may say the greatest 64-bit integer."""
    large = isinstance(value, int) and MAX_SAFE_INTEGER < abs(value) < MAX_NUMBER
    return float(value) if large else _map_children(value, _as_doubles)


def _without_large(value: Any) -> Any:
    """Return a JSON value without such numbers, whose digest is that of the double next to them."""
    large = isinstance(value, float) and MAX_SAFE_INTEGER < abs(value) < MAX_NUMBER
    return 0 if large else _map_children(value, _without_large)


def _map_children(value: Any, each: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: each(inner) for key, inner in value.items()}
    return [each(inner) for inner in value] if isinstance(value, list) else value


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: a person would read the one and a program take the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a key is there twice in one object"
        raise ValueError(message)
    return found
