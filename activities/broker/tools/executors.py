"""The result of a tool's upstream, before it is redacted and passed on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """An answer as it came. Its repr omits the content, which may contain the credential."""

    content: bytes
    failed: bool = False
    """Whether it is an error for the model."""
    cut: bool = False
    """Whether the answer was truncated."""

    def __repr__(self) -> str:
        return f"Result({len(self.content)} bytes, failed={self.failed}, cut={self.cut})"


def failure(why: str) -> Result:
    """Return our own answer that says what went wrong."""
    return Result(why.encode(), failed=True)
