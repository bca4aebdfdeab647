"""Calls upstream MCP servers with the official SDK's client, over a checked and bounded connection. Decides nothing."""

from justenough.adapters.mcp_client.client import McpConversation, Unanswered, run_conversation

__all__ = ["McpConversation", "Unanswered", "run_conversation"]
