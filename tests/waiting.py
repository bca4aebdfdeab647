"""Waiting for something that nobody tells of."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 0.05
"""Seconds between two looks."""


def until(happened: Callable[[], object], what: str, *, within: float = 60) -> None:
    """Look until something has happened; fail, saying what did not, where it takes longer than `within` seconds."""
    end = time.monotonic() + within
    while not happened():
        assert time.monotonic() < end, f"not in {within:.0f} s: {what}"
        time.sleep(PAUSE)
