"""The tools of upstream MCP servers: which ones jobs can call, under which name and action, and why others are withheld. No I/O.

The reviewed list of a server is a file next to the catalog, `tools/<name>.json`, and the catalog has its digest. Models see the tools of
that file, never the server's current list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from justenough.domain.catalog.gateway_validation import foreign_references
from justenough.domain.catalog.mcp_tool_list import TOOLS_KEY, ListedTool, ToolList
from justenough.domain.catalog.models import Catalog, UpstreamTools
from justenough.domain.core.errors import Problem, raise_problems
from justenough.domain.core.json_schema import check_schema
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.schema_cost import expensive_part
from justenough.domain.core.untrusted_yaml import to_yaml_path
from justenough.domain.jobs.spec import Name
from justenough.domain.jobs.states import Action
from justenough.domain.tools.call import action_of
from justenough.domain.tools.definitions import Tool, ToolUses

TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Matches valid names of exposed tools, including the prefix, by MCP's specification."""
HEADER_KEYWORD = "x-mcp-header"
COMPOSING_KEYWORDS = frozenset(
    {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas", "unevaluatedProperties"}
)
"""Keywords with which a schema can define properties outside of `properties`."""


class UpstreamTool(Tool):
    """One tool of an upstream server, as a job may call it."""

    description: str = ""
    upstream: Name
    """The server, as the catalog names it."""
    own_name: str
    """As the server names it."""
    reviewed: str
    """Digest of the list that contains it."""
    title: str = ""
    hints: Mapping[str, Any] = Field(default_factory=dict)
    """The server's annotations."""

    @property
    def schema_of_input(self) -> dict[str, Any]:
        """The JSON Schema of its input. Unlisted properties are rejected, unless the schema allows them or defines properties elsewhere."""
        closed = {} if COMPOSING_KEYWORDS & self.input.keys() else {"additionalProperties": False}
        schema: dict[str, Any] = _without_headers({**closed, **self.input})
        return schema


class UpstreamListingTool(Tool):
    """Lists an upstream server's current tools for review. Only for jobs whose order names it, so that no model reads them by chance."""


def with_upstream_tools(catalog: Catalog, lists: Mapping[str, ToolList]) -> Catalog:
    """Return the catalog with the tools of its upstream servers. `lists`: the reviewed lists, by server. Raises InvalidInput if names collide."""
    servers = {name: tool for name, tool in catalog.tools.items() if tool.mcp}
    withheld = {name: why for name, tool in servers.items() if (why := why_withheld(name, tool, lists.get(name)))}
    listings = {f"{name}.{TOOLS_KEY}": _listing_tool(name, tool) for name, tool in servers.items()}
    taken: dict[str, Tool] = {name: tool for name, tool in catalog.tools.items() if not tool.mcp} | listings
    callable_tools: dict[str, Tool] = {}
    problems: list[Problem] = []
    for name, server in servers.items():
        for tool in () if name in withheld else upstream_tools(name, server, lists[name]):
            exposed = exposed_name(server, tool.own_name)
            if other := taken.get(exposed):
                owner = other.upstream if isinstance(other, UpstreamTool) else "the catalog"
                fix = f"rename its tools with `prefix: {name.replace('-', '_')}_` under mcp"
                problems.append(Problem(f"tools.{name}.mcp", f"{exposed}: {owner} has a tool of this name too; {fix}"))
            callable_tools[exposed] = taken.setdefault(exposed, tool)
    raise_problems("catalog.yaml", sorted(problems))
    return catalog.with_upstreams(UpstreamTools(callable_tools, listings, withheld, lists))


def _listing_tool(name: str, tool: Tool) -> UpstreamListingTool:
    """Return the tool that lists a server's tools, under the least privileged of the server's actions."""
    return UpstreamListingTool(
        description=f"Lists the tools that {name} shows now, whether they were reviewed or not",
        uses=ToolUses(resource=tool.uses.resource, action=min(tool.uses.actions, key=lambda action: action.rank)),
        mcp=tool.mcp,
    )


def why_withheld(name: str, tool: Tool, tool_list: ToolList | None) -> str | None:
    """Return why jobs cannot call any tool of an upstream server and what to do about it, or None if they can."""
    pinned = tool.mcp.tools if tool.mcp else None
    review = f"a platform engineer must review and pin them with `justenough catalog tools {name}`"
    if pinned is None:
        return f"the tools of {name} have not been reviewed (the catalog has no digest of them): {review}"
    if tool_list is None:
        return f"the reviewed tools of {name} are missing ({TOOLS_KEY}/{name}.json next to the catalog): {review}"
    if tool_list.digest != pinned:
        return f"the tools of {name} in {TOOLS_KEY}/{name}.json do not match the digest in the catalog: {review}"
    return None


def upstream_tools(name: str, tool: Tool, tool_list: ToolList) -> Iterator[UpstreamTool]:
    """Yield the callable tools of an upstream server whose names match a pattern of the catalog."""
    for listed in tool_list.tools:
        action = action_of(tool.uses, listed.name)
        if action is not None and not why_left_out(tool, listed):
            yield UpstreamTool(
                description=listed.description,
                uses=ToolUses(resource=tool.uses.resource, action=action),
                input=listed.schema,
                mcp=tool.mcp,
                upstream=name,
                own_name=listed.name,
                reviewed=tool_list.digest,
                title=listed.title or str(listed.annotations.get("title") or ""),
                hints=listed.annotations,
            )


def why_left_out(tool: Tool, listed_tool: ListedTool) -> Rejection | None:
    """Return why jobs cannot call a tool of an upstream server, or None if they can."""
    if action_of(tool.uses, listed_tool.name) is None:
        return Rejection("no_action", "no pattern of uses.action matches its name")
    if not TOOL_NAME.fullmatch(exposed_name(tool, listed_tool.name)):
        return Rejection("name_invalid", "MCP does not allow its name (only letters, digits, _ - . and at most 128 characters)")
    if listed_tool.schema.get("type") != "object":
        return Rejection("schema_not_object", "its inputSchema is not of type object")
    if next(foreign_references(listed_tool.schema, "inputSchema"), None):
        return Rejection("schema_not_local", "its inputSchema refers to another document")
    if check_schema(listed_tool.schema):
        return Rejection("schema_invalid", "its inputSchema is not a valid JSON Schema")
    location, message = expensive_part(listed_tool.schema) or ((), "")
    return Rejection("schema_expensive", f"its {to_yaml_path(('inputSchema', *location))}: {message}") if message else None


def exposed_name(tool: Tool, own_name: str) -> str:
    """Return the name by which jobs call a tool of an upstream server: its own name with the catalog's prefix, if any."""
    return ((tool.mcp.prefix or "") if tool.mcp else "") + own_name


def review_hints(listed_tool: ListedTool, action: Action | None) -> Iterator[str]:
    """Yield hints about the parts of a tool that a reviewer should check carefully."""
    if action is Action.READ and (
        listed_tool.annotations.get("readOnlyHint") is False or listed_tool.annotations.get("destructiveHint") is True
    ):
        yield "mapped to read, but the server declares that it writes"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", listed_tool.name):
        yield "some clients reject this name"
    if any(not char.isprintable() and char not in "\n\t" for char in listed_tool.description + listed_tool.title):
        yield "its description contains unprintable characters"


def _without_headers(schema: Any) -> Any:
    """Return a schema without `x-mcp-header` keywords: they concern the server's direct client, which is the gateway."""
    if isinstance(schema, Mapping):
        return {key: _without_headers(inner) for key, inner in schema.items() if key != HEADER_KEYWORD or not isinstance(inner, str)}
    return [_without_headers(inner) for inner in schema] if isinstance(schema, list | tuple) else schema
