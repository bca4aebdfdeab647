"""Counts the values of JSON that a stranger sent, before a library validates them. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def has_more_values(value: Any, most: int, *, uncounted: Collection[str]) -> bool:
    """Whether a JSON value contains more than `most` values, besides those in fields that have one of the `uncounted` names."""
    count, waiting = 0, [value]
    while waiting and count <= most:
        outer = waiting.pop()
        inner = [each for name, each in outer.items() if name not in uncounted] if isinstance(outer, dict) else outer
        if isinstance(inner, list):
            count += len(inner)
            waiting += inner[:most]
    return count > most
