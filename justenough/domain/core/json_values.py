"""Limits what JSON that a stranger sent may contain, before a library validates it. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from justenough.domain.core.errors import reject_if


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


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object (an `object_pairs_hook`). Raises ValueError if a key is repeated: one reader could see its first value, another its last."""
    unique = dict(pairs)
    reject_if(len(unique) != len(pairs), "duplicate key in an object")
    return unique
