"""What a tool's upstream answered, before anything of it is passed on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """An answer as it came. Never prints: it may hold the credential that it was had with."""

    content: bytes
    failed: bool = False
    """Whether the model is to take it for an error."""
    cut: bool = False
    """Whether there was more than is passed on."""

    def __repr__(self) -> str:
        return f"Result({len(self.content)} bytes, failed={self.failed}, cut={self.cut})"


def failure(why: str) -> Result:
    """Return an answer of our own that says what went wrong."""
    return Result(why.encode(), failed=True)
