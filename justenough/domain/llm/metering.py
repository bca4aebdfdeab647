"""How many tokens a job's calls of its model used, and its budget. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from justenough.domain.jobs.spec import MAX_MODEL_TOKENS

BYTES_PER_TOKEN = 4


_EVENT_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens of one call, or of several."""

    prompt: int = 0
    completion: int = 0
    estimated: bool = False
    """Whether they were counted here, from the text: the upstream did not tell."""

    @property
    def tokens(self) -> int:
        """What counts against a budget."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """What one job may still have. A value; using some returns what is left."""

    requests: int
    tokens: int
    asked: int = 0
    used: int = 0

    @property
    def exhausted_part(self) -> str:
        """Which part is over: `requests`, `tokens`, or nothing."""
        return "requests" if self.asked >= self.requests else "tokens" if self.used >= self.tokens else ""

    @property
    def tokens_left(self) -> int:
        """Tokens that are left; 0 where more were used."""
        return max(0, self.tokens - self.used)

    def with_call(self) -> TokenBudget:
        """Return what is left once one more call has begun."""
        return replace(self, asked=self.asked + 1)

    def with_usage(self, usage: TokenUsage) -> TokenBudget:
        """Return what is left once a call has ended."""
        return replace(self, used=self.used + usage.tokens)


@dataclass(frozen=True, slots=True)
class UsageTally:
    """What several calls with one model and one outcome came to."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    estimated: int = 0
    """Calls whose tokens were counted here."""

    def with_call(self, usage: TokenUsage) -> UsageTally:
        """Return it with one call more."""
        estimated = self.estimated + usage.estimated
        return UsageTally(self.calls + 1, self.prompt + usage.prompt, self.completion + usage.completion, estimated)


class StreamMeter:
    """A streamed answer on its way: counts, and leaves out what only the gateway asked for. Cut the input as you like."""

    def __init__(self, *, prompt: int, usage_requested: bool) -> None:
        """`prompt`: tokens of the question, estimated. `usage_requested`: whether the job itself asked to be told the usage."""
        self._usage_requested = usage_requested
        self._prompt = prompt
        self._bytes = 0
        self._usage: TokenUsage | None = None
        self._held = b""
        self.done = False
        """Whether the upstream said that this is all."""

    @property
    def usage(self) -> TokenUsage:
        """What it took so far: as the upstream told, else as it was counted."""
        return self._usage or TokenUsage(self._prompt, _estimate_tokens(self._bytes), estimated=True)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an event whose end has not come."""
        return len(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that are whole now, as they came."""
        *events, self._held = _split_events(self._held + chunk)
        return b"".join(event for event in events if self._passes(event))

    def flush(self) -> bytes:
        """Return what came without an end: the stream is over."""
        rest, self._held = self._held, b""
        return rest if rest.strip() and self._passes(rest) else b""

    def _passes(self, event: bytes) -> bool:
        data = _event_data(event)
        if data is None:
            self.done = self.done or event.strip().endswith(b"[DONE]")
            # What cannot be read is counted whole; a comment that keeps a connection open is nothing.
            self._bytes += 0 if self.done or event.startswith(b":") else len(event)
            return True
        self._usage = reported_usage(data) or self._usage
        self._bytes += sum(map(len, _iter_texts(data)))
        return self._usage_requested or bool(data.get("choices")) or "usage" not in data


def usage_of_body(body: Mapping[str, Any], *, prompt: int) -> TokenUsage:
    """Return what an answer took that came in one piece."""
    return reported_usage(body) or TokenUsage(prompt, _estimate_tokens(sum(map(len, _iter_texts(body)))), estimated=True)


def reported_usage(body: Mapping[str, Any]) -> TokenUsage | None:
    """Return what an upstream says of its use; None where it does not, or says what cannot be."""
    told = body.get("usage")
    if not isinstance(told, Mapping):
        return None
    counts = [told.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    if "prompt_tokens" not in told or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts):
        return None
    return TokenUsage(*(min(count, MAX_MODEL_TOKENS) for count in counts))


def estimate_prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return the tokens of a question, by the length of all that it says: a model reads functions and schemas, too."""
    said = [value for name, value in body.items() if name != "model" and isinstance(value, str | list | dict)]
    return _estimate_tokens(len(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")))


def _estimate_tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def _split_events(text: bytes) -> Iterator[bytes]:
    """Yield each whole event with the empty line that ends it, then what is left."""
    at = 0
    for end in _EVENT_END.finditer(text):
        yield text[at : end.end()]
        at = end.end()
    yield text[at:]


def _event_data(event: bytes) -> dict[str, Any] | None:
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        found = json.loads(b"\n".join(lines))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _iter_texts(body: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield what was written, of a whole answer or of one event: text, and the tools that are called."""
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        part = (choice.get("delta") or choice.get("message")) if isinstance(choice, Mapping) else None
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if value and name != "role":
                yield (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode("utf-8", "surrogatepass")
