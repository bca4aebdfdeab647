"""Tool definitions and tool calls. Pure."""
