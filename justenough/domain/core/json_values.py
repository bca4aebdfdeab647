"""Counts the values of JSON that a stranger sent, before a library validates them. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def count_values(value: Any, most: int, *, uncounted: Collection[str]) -> int:
    """Return how many values a JSON value contains, besides those in fields that have one of the `uncounted` names; some number above
    `most` if there are more.
    """
    count, waiting = 0, [value]
    while waiting and count <= most:
        outer = waiting.pop()
        inner = [each for name, each in outer.items() if name not in uncounted] if isinstance(outer, dict) else outer
        if isinstance(inner, list):
            count += len(inner)
            waiting += inner[:most]
    return count
