"""Whether a text could be a pattern with wildcards, each of which stands for any text. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def fits_wildcards(text: str, fixed_parts: Sequence[str]) -> bool:
    """Whether a text consists of these parts with any text, or none, between each two of them.

    Searches the parts one after the other: who chooses the text could make a regular expression with several `.*` run for hours.
    """
    first, *others = fixed_parts
    if not others:
        return text == first
    *between, last = others
    place, end = len(first), len(text) - len(last)
    if place > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in between:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
