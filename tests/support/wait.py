"""Polling for conditions that send no notification."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SHORTEST, LONGEST = 0.05, 1.0
"""Seconds between two checks: at first, and at most."""
OFTEN = 10
"""The pause is the elapsed time divided by this: checks cost the servers time, and a long wait needs no exact end."""
T = TypeVar("T")


def until(check: Callable[[], T], what: str, *, within: float = 180) -> T:
    """Call `check` until it returns a true value, and return that. Fails with `what` after `within` seconds."""
    began = time.monotonic()
    while not (result := check()):
        assert time.monotonic() < began + within, f"not in {within:.0f} s: {what}"
        pause(since=began)
    return result


def pause(*, since: float) -> None:
    """Sleep between two checks of a wait that began at `since` (monotonic)."""
    time.sleep(min(max((time.monotonic() - since) / OFTEN, SHORTEST), LONGEST))
