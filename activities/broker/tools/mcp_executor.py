"""Passes one call on to an upstream MCP server: its list is looked at first, by the same connection, and only what was reviewed is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp import types

from activities.broker.tools.executors import Result, failure
from justenough.adapters.mcp_client import Conversation, Unanswered, asked
from justenough.domain.catalog.mcp_tool_list import ToolList
from justenough.domain.catalog.mcp_upstreams import PassedOn
from justenough.domain.core.errors import InvalidInput
from justenough.domain.tools.call import Call, headers_of
from justenough.domain.tools.definitions import Upstream

Holds = Callable[[PassedOn, ToolList], bool]


@dataclass(frozen=True, slots=True)
class Changed:
    """A server shows other tools than those that were reviewed: nothing was called."""

    tool: PassedOn
    shown: ToolList


async def run(tool: PassedOn, upstream: Upstream, call: Call, fields: Mapping[str, str], *, holds: Holds) -> Result | Changed:
    """Return what the upstream answered. `fields`: the credential's, and the job's data scope. Raises InvalidInput where it lacks one.

    `holds` takes note of what the server shows, and says whether it is what was reviewed.
    """
    headers, called = headers_of(upstream.headers, fields), False

    async def done(conversation: Conversation) -> Result | Changed:
        shown = await conversation.tools()
        if not holds(tool, shown):
            return Changed(tool, shown)
        nonlocal called
        called = True
        return _result(await conversation.call(tool.own_name, call.arguments), upstream.answer)

    try:
        return await asked(upstream, headers, done)
    except (Unanswered, InvalidInput) as error:
        return failure(f"{error}; whether the call had any effect is not known" if called else str(error))


async def listed(upstream: Upstream, fields: Mapping[str, str]) -> Result:
    """Return what an upstream shows now, as a reviewer is shown it. Raises InvalidInput where a field is missing."""
    headers = headers_of(upstream.headers, fields)
    try:
        return Result((await asked(upstream, headers, lambda conversation: conversation.tools())).text.encode("utf-8", "replace"))
    except (Unanswered, InvalidInput) as error:
        return failure(str(error))


def _result(answer: types.CallToolResult, most: int) -> Result:
    """Return a result as text: what was written for a model, else what was written for programs."""
    parts = [_text(block) for block in answer.content]
    if not parts and answer.structured_content is not None:
        parts = [json.dumps(answer.structured_content, ensure_ascii=False)]
    content = "\n".join(parts).encode("utf-8", "replace")
    return Result(content[:most], failed=answer.is_error, cut=len(content) > most)


def _text(block: Any) -> str:
    """Return a part of an answer as text; of what is none, what it was: nobody could take a secret out of a picture."""
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return f"{resource.uri}\n{resource.text}"
        case types.ResourceLink():
            return f"[{block.name}: {block.uri}]"
    return f"[{getattr(block, 'type', 'something')} {getattr(block, 'mime_type', '') or ''} is not passed on]"
