"""Passes one call on to an upstream MCP server, after checking on the same connection that its tool list is the reviewed one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp import types

from activities.broker.tools.executors import Result, failure
from justenough.adapters.mcp_client import McpConversation, Unanswered, run_conversation
from justenough.domain.catalog.mcp_tool_list import ToolList
from justenough.domain.catalog.mcp_upstreams import UpstreamTool
from justenough.domain.core.errors import InvalidInput
from justenough.domain.tools.call import ToolCall, fill_headers
from justenough.domain.tools.definitions import McpServerDef

IsReviewed = Callable[[UpstreamTool, ToolList], bool]


@dataclass(frozen=True, slots=True)
class ToolsChanged:
    """A server's tools differ from the reviewed ones, so nothing was called."""

    tool: UpstreamTool
    shown: ToolList


async def run(
    tool: UpstreamTool, upstream: McpServerDef, call: ToolCall, fields: Mapping[str, str], *, is_reviewed: IsReviewed
) -> Result | ToolsChanged:
    """Return the upstream's answer. `fields`: the credential's, and the job's data scope. Raises InvalidInput if one is missing.

    `is_reviewed` notes which tools the server shows, and returns whether they are the reviewed ones.
    """
    headers, called = fill_headers(upstream.headers, fields), False

    async def call_tool(conversation: McpConversation) -> Result | ToolsChanged:
        shown = await conversation.list_tools()
        if not is_reviewed(tool, shown):
            return ToolsChanged(tool, shown)
        nonlocal called
        called = True
        answer = await conversation.call_tool(tool.own_name, call.arguments)
        # The text for models; if there is none, the structured content for programs.
        parts = [_block_text(block) for block in answer.content]
        if not parts and answer.structured_content is not None:
            parts = [json.dumps(answer.structured_content, ensure_ascii=False)]
        content = "\n".join(parts).encode("utf-8", "replace")
        return Result(content[: upstream.answer], failed=answer.is_error, cut=len(content) > upstream.answer)

    try:
        return await run_conversation(upstream, headers, call_tool)
    except (Unanswered, InvalidInput) as error:
        return failure(f"{error}; whether the call had any effect is not known" if called else str(error))


async def list_tools(upstream: McpServerDef, fields: Mapping[str, str]) -> Result:
    """Return the tools that an upstream shows now, as a reviewer sees them. Raises InvalidInput if a field is missing."""
    headers = fill_headers(upstream.headers, fields)
    try:
        tools = await run_conversation(upstream, headers, lambda conversation: conversation.list_tools())
    except (Unanswered, InvalidInput) as error:
        return failure(str(error))
    return Result(tools.text.encode("utf-8", "replace"))


def _block_text(block: Any) -> str:
    """Return one block of an answer as text, or a note of its type: a secret could not be scrubbed from a picture."""
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return f"{resource.uri}\n{resource.text}"
        case types.ResourceLink():
            return f"[{block.name}: {block.uri}]"
    return f"[{getattr(block, 'type', 'something')} {getattr(block, 'mime_type', '') or ''} is not passed on]"
