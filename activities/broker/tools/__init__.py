"""The tool gateway: what an agent may have done for it, without ever holding a secret. gateway.py decides and scrubs, mcp.py speaks, the rest do."""

from activities.broker.tools.gateway import ToolGateway
from activities.broker.tools.mcp_server import serve_tools

__all__ = ["ToolGateway", "serve_tools"]
