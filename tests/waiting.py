"""Waiting for something that nobody tells of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PAUSE = 0.05
"""Seconds between two looks."""
T = TypeVar("T")


def until(happened: Callable[[], T], what: str, *, within: float = 60) -> T:
    """Look until something has happened, and return what was seen; fail, saying what did not, where it takes longer than `within` seconds."""
    end = time.monotonic() + within
    while not (seen := happened()):
        assert time.monotonic() < end, f"not in {within:.0f} s: {what}"
        time.sleep(PAUSE)
    return seen
