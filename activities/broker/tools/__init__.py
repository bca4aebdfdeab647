"""The tool gateway: calls tools for an agent, which never sees a secret. gateway.py decides and redacts, mcp_app.py starts the MCP server."""

from activities.broker.tools.gateway import ToolGateway
from activities.broker.tools.mcp_app import serve_tools

__all__ = ["ToolGateway", "serve_tools"]
