"""One model call under way: the head of its answer, then its pieces as they come. Queues only a few pieces for a slow reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from activities.broker.llm.upstream_client import ModelCallError
from justenough.domain.llm.metering import TokenUsage, estimate_prompt_tokens

MAX_QUEUED_PIECES = 16
"""Pieces that may wait for their reader; then the upstream must wait too."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A job's request to a model, and the body to send upstream."""

    model: str
    wants_usage: bool
    """Whether the job itself requested the usage at a stream's end."""
    prompt: int
    """Tokens, estimated."""
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, checked_body: dict[str, Any]) -> ChatRequest:
        """Build a request from a checked body. A streaming request always asks the upstream for the usage."""
        options = checked_body.get("stream_options") or {}
        sent = {**checked_body, "stream_options": {**options, "include_usage": True}} if checked_body.get("stream") else checked_body
        prompt = estimate_prompt_tokens(checked_body)
        return cls(checked_body["model"], bool(options.get("include_usage")), prompt, json.dumps(sent).encode())


class StreamingCall:
    """One call. The gateway sets `head` and calls `pass_on` and `end`; the job's side reads `head` and `pieces`."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.usage = TokenUsage(request.prompt, estimated=True)
        """Tokens used so far."""
        self.outcome = "cut"
        self.head: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The media type of the answer, once there is one; or the ModelCallError that prevented it."""
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()

    async def pass_on(self, piece: bytes) -> None:
        """Queue a piece for the reader, once there is room."""
        await self._room.wait()
        self._pieces.put_nowait(piece)
        if self._pieces.qsize() >= MAX_QUEUED_PIECES:
            self._room.clear()

    def end(self, error: ModelCallError | None = None) -> None:
        """End the answer, with an error if it is not complete."""
        if error:
            self.outcome = error.outcome
        if error and not self.head.done():
            self.head.set_exception(error)
            # Mark the exception as retrieved: the reader may be gone.
            self.head.exception()
        elif error:
            self._pieces.put_nowait(b"data: " + json.dumps(error_body(error)).encode() + b"\n\n")
        self._pieces.put_nowait(None)

    async def pieces(self, task: asyncio.Task[None]) -> AsyncIterator[bytes]:
        """Yield the pieces as they come. A reader that disconnects cancels the call."""
        try:
            while (piece := await self._pieces.get()) is not None:
                if self._pieces.qsize() < MAX_QUEUED_PIECES:
                    self._room.set()
                yield piece
        finally:
            task.cancel()


def error_body(error: ModelCallError, *, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's format."""
    kinds = {401: "authentication_error", 403: "permission_error", **dict.fromkeys((400, 404, 422), "invalid_request_error")}
    quota = error.code in {"requests_budget_exceeded", "tokens_budget_exceeded"}
    kind = "insufficient_quota" if quota else kinds.get(error.status, "api_error")
    return {"error": {"message": str(error), "type": kind, "code": error.code, "param": param}}
