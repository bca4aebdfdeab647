"""Waiting for something that nobody tells of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SHORTEST, LONGEST = 0.02, 0.25
"""Seconds between two looks: at first, and at most."""
OFTEN = 20
"""How many looks are made in as long as a wait has lasted: looking costs the servers time, and a long wait need not end to the millisecond."""
T = TypeVar("T")


def until(happened: Callable[[], T], what: str, *, within: float = 180) -> T:
    """Look until something has happened, and return what was seen; fail, saying what did not, where it takes longer than `within` seconds."""
    began = time.monotonic()
    while not (seen := happened()):
        assert time.monotonic() < began + within, f"not in {within:.0f} s: {what}"
        pause(since=began)
    return seen


def pause(*, since: float) -> None:
    """Sleep between two looks of a wait that began then (monotonic)."""
    time.sleep(min(max((time.monotonic() - since) / OFTEN, SHORTEST), LONGEST))
