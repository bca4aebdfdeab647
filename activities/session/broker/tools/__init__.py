"""The tool gateway: what an agent may have done for it, without ever holding a secret. gateway.py decides and scrubs, mcp.py speaks, the rest do."""

from activities.session.broker.tools.gateway import Tools
from activities.session.broker.tools.mcp import serving

__all__ = ["Tools", "serving"]
