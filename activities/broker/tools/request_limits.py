"""Limits of requests to /mcp: refuses what would take the SDK too long to validate. Does not load the SDK."""

from __future__ import annotations

import json

from starlette.types import Message, Receive

from justenough.domain.core.json_values import count_values

MAX_BODY_BYTES = 128 * 1024
"""Bytes of one request's body."""
MAX_VALUES = 1_000
"""JSON values of one request, besides a call's arguments. The SDK validates them while every other job of the worker waits."""
INVALID_PARAMS = -32602
"""JSON-RPC's code for invalid parameters, repeated here because the SDK is not loaded."""


async def check_request(receive: Receive) -> tuple[Receive, str | None]:
    """Read a request; return a function to read it again, and why it is refused, or None."""
    messages, body = list[Message](), bytearray()
    more = True
    while more and len(body) <= MAX_BODY_BYTES:
        messages.append(await receive())
        body += messages[-1].get("body", b"")
        more = messages[-1].get("more_body", False)

    async def replay() -> Message:
        return messages.pop(0) if messages else await receive()

    return replay, None if more else why_costly(bytes(body))


def why_costly(body: bytes) -> str | None:
    """Return why the SDK would take too long to validate a request, or None. The SDK itself refuses what is not JSON."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    params = message.get("params") if isinstance(message, dict) else None
    if isinstance(params, dict) and params.get("inputResponses"):
        return "inputResponses: this server never asks for input"
    if count_values(params, MAX_VALUES, uncounted={"arguments"}) > MAX_VALUES:
        return f"params: more than {MAX_VALUES:,} values besides a call's arguments"
    return None
