"""Tiers in words, and which tiers a break-glass approval bypasses. No I/O, no clock, no pydantic: the CLI loads it."""

from __future__ import annotations

from collections.abc import Sequence


def bypassed_tiers(needed: int, current: int) -> tuple[int, ...]:
    """Return the tiers that a break-glass approval bypasses: the one that policy requires, and each further one up to the current one."""
    return tuple(range(needed, current + 1))


def tier_text(number: int, name: str = "") -> str:
    """Return a tier with its name: `tier 1 (owner)`."""
    return f"tier {number} ({name})" if name else f"tier {number}"


def tiers_text(numbers: Sequence[int], names: Sequence[str] = ()) -> str:
    """Return tiers with their names: `tier 1 (owner) and tier 2 (security)`. `names`: one per number, or none if they are not known."""
    *first, last = [tier_text(number, name) for number, name in zip(numbers, names or [""] * len(numbers), strict=True)]
    return f"{', '.join(first)} and {last}" if first else last
