"""Counts the tokens of a job's model calls, and tracks its budget. Pure.

The upstream reports the usage (OpenAI's protocol); if it does not, four bytes of a request count as one token, each picture as 1,000, and 100 bytes of a
sound as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from justenough.domain.jobs.spec import MAX_MODEL_TOKENS

BYTES_PER_TOKEN, BYTES_PER_TOKEN_OF_SOUND, TOKENS_PER_PICTURE = 4, 100, 1_000
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_MAX_EVENT_END = 4
"""Bytes of the longest _EVENT_END."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens of one or more calls."""

    prompt: int = 0
    completion: int = 0
    estimated: bool = False
    """Whether they were estimated from the text, because the upstream did not report them."""

    @property
    def tokens(self) -> int:
        """The tokens that count against a budget."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """A job's budget and what it has used. Immutable: each method returns a copy."""

    requests: int
    tokens: int
    asked: int = 0
    used: int = 0

    @property
    def exhausted_part(self) -> str:
        """The exhausted part: `requests`, `tokens`, or an empty text."""
        return "requests" if self.asked >= self.requests else "tokens" if self.used >= self.tokens else ""

    @property
    def tokens_left(self) -> int:
        """The remaining tokens; 0 if more were used."""
        return max(0, self.tokens - self.used)

    def with_call(self) -> TokenBudget:
        """Return the budget after one more call has begun."""
        return replace(self, asked=self.asked + 1)

    def with_usage(self, usage: TokenUsage) -> TokenBudget:
        """Return the budget after a call with this usage has ended."""
        return replace(self, used=self.used + usage.tokens)


@dataclass(frozen=True, slots=True)
class UsageTally:
    """The total usage of several calls with one model and one outcome."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    estimated: int = 0
    """Calls whose tokens were estimated."""

    def with_call(self, usage: TokenUsage) -> UsageTally:
        estimated = self.estimated + usage.estimated
        return UsageTally(self.calls + 1, self.prompt + usage.prompt, self.completion + usage.completion, estimated)


class StreamMeter:
    """Meters a streamed response and removes usage events that only the gateway requested. The input may be cut into any chunks."""

    def __init__(self, *, prompt: int, usage_requested: bool) -> None:
        """`prompt`: estimated tokens of the prompt. `usage_requested`: whether the job itself requested the usage."""
        self._usage_requested = usage_requested
        self._prompt = prompt
        self._bytes = 0
        self._usage: TokenUsage | None = None
        self._held = bytearray()
        self.done = False
        """Whether the upstream marked the end of the response."""

    @property
    def usage(self) -> TokenUsage:
        """The usage so far: as the upstream reported it, with an estimate of the text since; else estimated."""
        since = _estimate_tokens(self._bytes)
        if self._usage is None:
            return TokenUsage(self._prompt, since, estimated=True)
        return replace(self._usage, completion=self._usage.completion + since, estimated=since > 0)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an incomplete event."""
        return len(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that are complete now, unchanged."""
        # The held bytes contain no end of an event, so search only where one may have appeared: an event may arrive in very many chunks.
        searched = max(0, len(self._held) - _MAX_EVENT_END + 1)
        self._held += chunk
        ends = [found.end() for found in _EVENT_END.finditer(self._held, searched)]
        events = [bytes(self._held[start:end]) for start, end in zip((0, *ends), ends, strict=False)]
        del self._held[: ends[-1] if ends else 0]
        return b"".join(event for event in events if self._passes(event))

    def flush(self) -> bytes:
        """Return the last event if it is incomplete. Call it when the stream has ended."""
        rest, self._held = bytes(self._held), bytearray()
        return rest if rest.strip() and self._passes(rest) else b""

    def _passes(self, event: bytes) -> bool:
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        try:
            data = json.loads(b"\n".join(lines))
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            self.done = self.done or event.strip().endswith(b"[DONE]")
            # An unreadable event counts with all of its bytes; a keep-alive comment does not count.
            self._bytes += 0 if self.done or event.startswith(b":") else len(event)
            return True
        self._bytes += sum(map(len, _iter_texts(data)))
        if usage := reported_usage(data):
            self._usage, self._bytes = usage, 0
        return self._usage_requested or bool(data.get("choices")) or "usage" not in data


def usage_of_body(body: Mapping[str, Any], *, prompt: int) -> TokenUsage:
    """Return the usage of a response that was not streamed."""
    return reported_usage(body) or TokenUsage(prompt, _estimate_tokens(sum(map(len, _iter_texts(body)))), estimated=True)


def reported_usage(body: Mapping[str, Any]) -> TokenUsage | None:
    """Return the usage that an upstream reports; None if it reports none or an impossible one."""
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return None
    counts = [usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    if "prompt_tokens" not in usage or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts):
        return None
    return TokenUsage(*(min(count, MAX_MODEL_TOKENS) for count in counts))


def estimate_prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return the estimated tokens of a request, from the length of all its content, because a model reads functions and schemas, too."""
    content = [value for name, value in body.items() if name != "model" and isinstance(value, str | list | dict)]
    size, tokens = len(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")), 0
    for data, cost in _iter_media(body.get("messages")):
        size, tokens = size - len(data), tokens + cost
    return _estimate_tokens(size) + tokens


def _iter_media(messages: Any) -> Iterator[tuple[str, int]]:
    """Yield the data and the tokens of each picture and sound. Anything else may be text, a file too, and counts by its bytes."""
    contents = [message.get("content") for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    for part in chain.from_iterable(content for content in contents if isinstance(content, list)):
        match part:
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                # A provider fetches a picture from any other URL.
                yield url if url.startswith("data:image/") else "", TOKENS_PER_PICTURE
            case {"type": "input_audio", "input_audio": {"data": str(data)}}:
                yield data, -(-len(data) // BYTES_PER_TOKEN_OF_SOUND)


def _estimate_tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def _iter_texts(body: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the generated content of a response or of one event: text and tool calls."""
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        part = (choice.get("delta") or choice.get("message")) if isinstance(choice, Mapping) else None
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if value and name != "role":
                yield (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode("utf-8", "surrogatepass")
