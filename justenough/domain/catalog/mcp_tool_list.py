"""Tool lists of MCP servers, reviewed and current: parsed, bounded, in one canonical form, compared. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.json_values import unique_object
from justenough.domain.core.untrusted_yaml import MAX_SAFE_INTEGER, check_json

TOOLS_KEY = "tools"
"""The key of a list in JSON; also the folder next to the catalog with the reviewed lists, `tools/<name>.json`."""
MAX_TOOLS = 500
"""Tools of one server."""
MAX_LIST_BYTES = 1024 * 1024
"""Maximum bytes of a list's canonical form."""
MAX_NAME_CHARS = 256
MAX_NUMBER = 1e300
"""The largest accepted number. RFC 8785 writes each number as the nearest double."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """One tool as its server lists it, with everything that models and people are shown about it."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the tool as MCP's `Tool` object, without empty fields."""
        optional = {"title": self.title, "description": self.description, "annotations": dict(self.annotations)}
        return {"name": self.name, "inputSchema": dict(self.schema), **{key: value for key, value in optional.items() if value}}


@dataclass(frozen=True)
class ToolList:
    """A server's tools, sorted by name."""

    tools: tuple[ListedTool, ...]

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the list's RFC 8785 form. Sorted by name, so that the server's order does not matter."""
        return digest_of([tool.as_json() for tool in self.tools])

    @property
    def text(self) -> str:
        """The text of the file next to the catalog: JSON that people can read and compare line by line."""
        return json.dumps({"tools": [tool.as_json() for tool in self.tools]}, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def build_tool_list(what: str, raw: Iterable[Any]) -> ToolList:
    """Build a list from MCP's `Tool` objects. Raises InvalidInput with every problem, by path."""
    # Write large integers as RFC 8785 does: a schema may contain the largest 64-bit integer.
    tools = [_replace_large(tool, int, float) for tool in raw]
    if len(tools) > MAX_TOOLS:
        raise InvalidInput(what, (Problem(TOOLS_KEY, f"{len(tools)} tools; at most {MAX_TOOLS} are accepted"),))
    # Large numbers are allowed here because the digest covers their nearest double.
    check_json(what, _replace_large(tools, float, lambda _: 0))
    problems = tuple(problem for index, tool in enumerate(tools) for problem in _tool_problems(tool, f"{TOOLS_KEY}[{index}]"))
    names = [tool["name"] for tool in tools] if not problems else []
    problems += tuple(Problem(TOOLS_KEY, f"duplicate tool {name!r}") for name in sorted({name for name in names if names.count(name) > 1}))
    raise_problems(what, problems)
    listed = (
        ListedTool(
            name=tool["name"],
            description=tool.get("description") or "",
            schema=tool["inputSchema"],
            title=tool.get("title") or "",
            annotations={key: value for key, value in (tool.get("annotations") or {}).items() if value is not None},
        )
        for tool in tools
    )
    tool_list = ToolList(tuple(sorted(listed, key=lambda tool: tool.name)))
    if len(to_canonical_json([tool.as_json() for tool in tool_list.tools])) > MAX_LIST_BYTES:
        raise InvalidInput(what, (Problem(TOOLS_KEY, f"the list is larger than {MAX_LIST_BYTES:,} bytes"),))
    return tool_list


def read_tool_list(what: str, text: str | bytes) -> ToolList:
    """Parse a list from JSON: `{"tools": […]}`, as in an answer to MCP's `tools/list`. Raises InvalidInput."""
    try:
        raw = json.loads(text, object_pairs_hook=unique_object)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(what, (Problem("", f"is not valid JSON: {error}"),)) from error
    result = raw.get("result", raw) if isinstance(raw, dict) else raw
    if not isinstance(result, dict) or not isinstance(result.get(TOOLS_KEY), list):
        raise InvalidInput(what, (Problem("", 'must have the form {"tools": […]}, as in an answer to tools/list'),))
    if result.get("nextCursor"):
        raise InvalidInput(what, (Problem("nextCursor", "this is one page of the list; provide all pages as one list without nextCursor"),))
    return build_tool_list(what, result[TOOLS_KEY])


def tool_list_changes(reviewed: ToolList | None, current: ToolList) -> Iterator[str]:
    """Yield each difference between the current and the reviewed list: `get_issue: description, inputSchema`, `new: drop_all`."""
    before, after = ({tool.name: tool.as_json() for tool in listed.tools} if listed else {} for listed in (reviewed, current))
    yield from (f"gone: {name}" for name in sorted(before.keys() - after.keys()))
    yield from (f"new: {name}" for name in sorted(after.keys() - before.keys()))
    for name in sorted(before.keys() & after.keys()):
        parts = sorted(key for key in before[name].keys() | after[name].keys() if before[name].get(key) != after[name].get(key))
        if parts:
            yield f"{name}: {', '.join(parts)}"


def _tool_problems(raw: Any, where: str) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield Problem(where, "must be an object")
        return
    name = raw.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
        yield Problem(f"{where}.name", f"must be text of at most {MAX_NAME_CHARS} characters")
    if not isinstance(raw.get("inputSchema"), dict):
        yield Problem(f"{where}.inputSchema", "must be an object")
    for key, kind, kind_name in (("title", str, "text"), ("description", str, "text"), ("annotations", dict, "an object")):
        if raw.get(key) is not None and not isinstance(raw[key], kind):
            yield Problem(f"{where}.{key}", f"must be {kind_name}")


def _replace_large(value: Any, kind: type[int | float], replacement: Callable[[Any], Any]) -> Any:
    """Return a JSON value in which each number that is too large to be an exact integer is replaced."""
    if isinstance(value, dict):
        return {key: _replace_large(inner, kind, replacement) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace_large(inner, kind, replacement) for inner in value]
    return replacement(value) if isinstance(value, kind) and MAX_SAFE_INTEGER < abs(value) < MAX_NUMBER else value
