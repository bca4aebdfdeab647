"""Calls upstream MCP servers with the official SDK's client, over a checked and bounded connection. Decides nothing."""
