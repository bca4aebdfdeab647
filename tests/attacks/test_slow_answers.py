"""An MCP server that wants to stop the worker's event loop: by answers that take long to examine, and by long tool lists."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp import types

from justenough.adapters.mcp_client.client import McpConversation, run_conversation
from justenough.domain.tools.definitions import McpServerDef
from tests.activities.broker.mcp_server import serve_mcp

pytestmark = pytest.mark.servers
NESTED: dict[str, Any] = {"type": "array", "items": {"$ref": "#/$defs/n"}}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/n"}},
    "$defs": {"n": {"anyOf": [NESTED, {**NESTED, "minItems": 1}]}},
}
"""Finding out why a value does not match takes twice as long for each level of the value."""


def test_an_answer_is_not_examined_against_the_schema_that_its_own_server_chose() -> None:
    value: Any = "no list"
    for _ in range(30):
        value = [value]
    with serve_mcp() as hub:
        hub.tools = [{"name": "get_echo", "inputSchema": {"type": "object"}, "outputSchema": OUTPUT_SCHEMA}]
        hub.structured = {"x": value}

        async def call_tool(conversation: McpConversation) -> types.CallToolResult:
            await conversation.list_tools()
            return await conversation.call_tool("get_echo", {})

        server = McpServerDef(url=hub.url, allow_private=True, timeout=60)
        assert asyncio.run(run_conversation(server, {}, call_tool)).structured_content == {"x": value}
