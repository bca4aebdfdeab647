"""The verdict "no", with its reason. A check returns a Rejection, or None (or the checked thing) for yes. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why something was rejected."""

    code: str
    """What code and tests compare: lower case, words joined by `_`. Never recorded."""
    message: str
    """What people read, without a full stop."""

    def __str__(self) -> str:
        return self.message
