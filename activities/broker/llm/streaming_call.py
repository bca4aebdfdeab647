"""One call of a model on its way: what its answer begins with, then its pieces as they come. Holds no more of them than a slow reader needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from activities.broker.llm.upstream_client import ModelCallError
from justenough.domain.llm.metering import TokenUsage, estimate_prompt_tokens

MAX_QUEUED_PIECES = 16
"""Pieces that wait for their reader before the upstream waits too."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a job asks of a model, and what is sent on for it."""

    model: str
    stream: bool
    wants_usage: bool
    """Whether the job itself wants to be told the usage at a stream's end."""
    prompt: int
    """Tokens, estimated."""
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, checked_body: dict[str, Any]) -> ChatRequest:
        """Return a checked body as a question; one that streams asks for the usage too."""
        stream, options = bool(checked_body.get("stream")), checked_body.get("stream_options") or {}
        sent = {**checked_body, "stream_options": {**options, "include_usage": True}} if stream else checked_body
        return cls(
            checked_body["model"],
            stream,
            bool(options.get("include_usage")),
            estimate_prompt_tokens(checked_body),
            json.dumps(sent).encode(),
        )


class StreamingCall:
    """One call. Whoever makes it tells `head`, `pass_on` and `end`; whoever asked reads `head` and `pieces`."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.usage = TokenUsage(request.prompt, estimated=True)
        """What it took so far."""
        self.outcome = "cut"
        self.head: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The media type of the answer, once there is one; else NoAnswer is raised."""
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()

    def begin(self, media_type: str) -> None:
        """Say that there is an answer."""
        self.head.set_result(media_type)

    async def pass_on(self, piece: bytes) -> None:
        """Hand a piece to the reader, when they have room."""
        await self._room.wait()
        self._pieces.put_nowait(piece)
        if self._pieces.qsize() >= MAX_QUEUED_PIECES:
            self._room.clear()

    def end(self, error: ModelCallError | None = None) -> None:
        """Say that nothing more comes, and why where that is no good end."""
        if error:
            self.outcome = error.outcome
        if error and not self.head.done():
            self.head.set_exception(error)
            # Nobody may be there to hear it.
            self.head.exception()
        elif error:
            self._pieces.put_nowait(b"data: " + json.dumps(error_body(error)).encode() + b"\n\n")
        self._pieces.put_nowait(None)

    async def pieces(self, task: asyncio.Task[None]) -> AsyncIterator[bytes]:
        """Yield the pieces as they come; a reader who goes away ends the call."""
        try:
            while (piece := await self._pieces.get()) is not None:
                if self._pieces.qsize() < MAX_QUEUED_PIECES:
                    self._room.set()
                yield piece
        finally:
            task.cancel()


def error_body(error: ModelCallError, *, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    kind = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error"}
    quota = {"requests_budget_exceeded", "tokens_budget_exceeded"}
    named = (
        "insufficient_quota"
        if error.code in quota
        else kind.get(error.status, "invalid_request_error" if error.status == 422 else "api_error")
    )
    return {"error": {"message": str(error), "type": named, "code": error.code, "param": param}}
