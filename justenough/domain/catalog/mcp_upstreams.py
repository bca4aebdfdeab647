"""The tools of upstream MCP servers: which are passed on to jobs, under which name and action, and why others are not. No I/O.

What was reviewed is a file beside the catalog, `tools/<name>.json` (the server's list as it was), and the catalog holds its digest. A model
is told what stands in that file, never what the server says today.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema_rs import Validator
from pydantic import Field

from justenough.domain.catalog.mcp_tool_list import TOOLS_KEY, ListedTool, ToolList
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.json_schema import build_validator, check_schema
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Name
from justenough.domain.jobs.states import Action
from justenough.domain.tools.call import action_of
from justenough.domain.tools.definitions import Tool, ToolUses, foreign_references

TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Of a tool that is passed on, by MCP's own words; its prefix counts."""
HEADER_KEYWORD = "x-mcp-header"
COMPOSING_KEYWORDS = frozenset(
    {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas", "unevaluatedProperties"}
)
"""Keywords by which a schema says of its properties elsewhere than in `properties`."""


class UpstreamTool(Tool):
    """One tool of an upstream server, as a job may call it."""

    description: str = ""
    upstream: Name
    """The server, as the catalog names it."""
    own_name: str
    """As the server names it."""
    reviewed: str
    """Digest of the list that it is from."""
    title: str = ""
    hints: Mapping[str, Any] = Field(default_factory=dict)
    """The server's annotations."""

    @property
    def schema_of_input(self) -> dict[str, Any]:
        """What its input must be; a schema that lists its properties in one place takes no others, unless it says so."""
        closed = {} if COMPOSING_KEYWORDS & self.input.keys() else {"additionalProperties": False}
        told: dict[str, Any] = _without_headers({**closed, **self.input})
        return told

    @property
    def validator(self) -> Validator:
        """What checks its input, by the draft that the schema names. No reference leads out of it (why_left_out)."""
        return build_validator(self.schema_of_input)


class UpstreamListingTool(Tool):
    """What an upstream server shows now, for people to review: only for a job whose order names it, for no model is to read that by chance."""

    @property
    def schema_of_input(self) -> dict[str, Any]:
        """It takes nothing."""
        return {"type": "object", "properties": {}, "additionalProperties": False}


def listing_tools_of(catalog: Catalog) -> dict[str, Tool]:
    """Return the tools that list other tools: `github.tools`, under the least of the server's actions."""
    return {
        f"{name}.{TOOLS_KEY}": UpstreamListingTool(
            description=f"Lists the tools that {name} shows now, whether they were reviewed or not",
            uses=ToolUses(resource=tool.uses.resource, action=min(tool.uses.actions, key=list(Action).index)),
            mcp=tool.mcp,
        )
        for name, tool in catalog.tools.items()
        if tool.mcp
    }


def with_upstream_tools(catalog: Catalog, lists: Mapping[str, ToolList]) -> Catalog:
    """Return the catalog with what its upstream servers pass on. `lists`: what was reviewed, by upstream. Raises InvalidInput where names collide."""
    upstreams = {name: tool for name, tool in catalog.tools.items() if tool.mcp}
    withheld = {name: why.message for name, tool in upstreams.items() if (why := why_withheld(name, tool, lists.get(name)))}
    passed: dict[str, Tool] = {name: tool for name, tool in catalog.tools.items() if not tool.mcp}
    listings = listing_tools_of(catalog)
    problems: list[Problem] = []
    for name, tool in upstreams.items():
        for one in () if name in withheld else upstream_tools(name, tool, lists[name]):
            exposed = exposed_name(tool, one.own_name)
            if other := passed.get(exposed) or listings.get(exposed):
                problems.append(Problem(f"tools.{name}.mcp", _collision_text(exposed, name, other)))
            passed.setdefault(exposed, one)
    if problems:
        raise InvalidInput("catalog.yaml", tuple(sorted(problems)))
    return catalog.with_callable_tools(passed, withheld=withheld, reviewed=lists, listings=listings)


def why_withheld(name: str, tool: Tool, tool_list: ToolList | None) -> Rejection | None:
    """Return why no tool of an upstream server is passed on and what to do about it, or None if they are."""
    pinned = tool.mcp.tools if tool.mcp else None
    review = f"a platform person looks at them and pins them with `justenough catalog tools {name}`"
    if pinned is None:
        return Rejection("not_pinned", f"the tools of {name} have not been reviewed (the catalog has no digest of them): {review}")
    if tool_list is None:
        return Rejection("list_missing", f"what was reviewed of {name} is not there ({TOOLS_KEY}/{name}.json beside the catalog): {review}")
    if tool_list.digest != pinned:
        message = f"{TOOLS_KEY}/{name}.json holds other tools of {name} than the catalog's digest pins: {review}"
        return Rejection("list_not_pinned", message)
    return None


def upstream_tools(name: str, tool: Tool, tool_list: ToolList) -> Iterator[UpstreamTool]:
    """Yield the tools of an upstream server that a pattern of the catalog fits and that can be called."""
    for one in tool_list.tools:
        action = action_of(tool.uses, one.name)
        if action is not None and not why_left_out(tool, one):
            yield UpstreamTool(
                description=one.description,
                uses=ToolUses(resource=tool.uses.resource, action=action),
                input=one.schema,
                mcp=tool.mcp,
                upstream=name,
                own_name=one.name,
                reviewed=tool_list.digest,
                title=one.title or str(one.annotations.get("title") or ""),
                hints=one.annotations,
            )


def why_left_out(tool: Tool, listed_tool: ListedTool) -> Rejection | None:
    """Return why a tool of an upstream server is not passed on, or None if it is."""
    if action_of(tool.uses, listed_tool.name) is None:
        return Rejection("no_action", "no pattern of uses.action fits its name")
    if not TOOL_NAME.fullmatch(exposed_name(tool, listed_tool.name)):
        return Rejection("name_invalid", "its name is none that MCP allows (letters, digits, _ - . and at most 128 of them)")
    if listed_tool.schema.get("type") != "object":
        return Rejection("schema_not_object", "its inputSchema is not of type object")
    if next(foreign_references(listed_tool.schema, "inputSchema"), None):
        return Rejection("schema_not_local", "its inputSchema refers to another document")
    return Rejection("schema_invalid", "its inputSchema is no JSON Schema") if check_schema(listed_tool.schema) else None


def exposed_name(tool: Tool, own_name: str) -> str:
    """Return the name that jobs call a tool of an upstream server by: its own, behind the catalog's prefix if there is one."""
    return ((tool.mcp.prefix or "") if tool.mcp else "") + own_name


def review_hints(listed_tool: ListedTool, action: Action | None) -> Iterator[str]:
    """Yield what a reviewer should look at twice."""
    if action is Action.READ and (
        listed_tool.annotations.get("readOnlyHint") is False or listed_tool.annotations.get("destructiveHint") is True
    ):
        yield "goes through as read, and the server says that it writes"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", listed_tool.name):
        yield "some clients refuse such a name"
    if any(not char.isprintable() and char not in "\n\t" for char in listed_tool.description + listed_tool.title):
        yield "its description has characters that do not print"


def _without_headers(schema: Any) -> Any:
    """Return a schema without its wishes for HTTP headers: those are between its server and whoever calls that, which is us."""
    if isinstance(schema, Mapping):
        return {key: _without_headers(inner) for key, inner in schema.items() if key != HEADER_KEYWORD or not isinstance(inner, str)}
    return [_without_headers(inner) for inner in schema] if isinstance(schema, list | tuple) else schema


def _collision_text(exposed: str, name: str, other: Tool) -> str:
    whose = f"a tool of {other.upstream}" if isinstance(other, UpstreamTool) else "a tool of the catalog"
    return f"{exposed} of {name} is {whose} too: give its tools names of their own, with `prefix: {name.replace('-', '_')}_` under mcp"
