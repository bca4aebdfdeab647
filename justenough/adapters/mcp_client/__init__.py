"""Upstream MCP servers as we ask them: by the official SDK's client, over a connection that is checked and bounded. Decides nothing.

transport.py carries messages, client.py asks.
"""

from justenough.adapters.mcp_client.client import McpConversation, Unanswered, run_conversation

__all__ = ["McpConversation", "Unanswered", "run_conversation"]
