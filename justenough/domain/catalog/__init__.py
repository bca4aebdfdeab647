"""The catalog: models, loader, control groups, MCP servers, access review. Pure."""
