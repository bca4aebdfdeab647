"""A rejection with its reason. A check returns a Rejection, or None (or the checked value) if it passes. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """The reason for a rejection."""

    code: str
    """For comparisons in code and tests: lower case, words joined by `_`. Never recorded."""
    message: str
    """For people to read, without a full stop."""

    def __str__(self) -> str:
        return self.message
