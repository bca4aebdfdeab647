"""Errors of conversations with upstream MCP servers. Does not load the SDK."""

from __future__ import annotations

from justenough.domain.core.errors import GiveUp


class Unanswered(GiveUp):
    """A conversation without a result. The message may quote the server at any length: remove secrets, and only then truncate it."""
