"""Wildcards: the same answer as a regular expression, in linear time."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.placeholders import fits_wildcards


@given(st.lists(st.text("ab*?[!]\n", max_size=2), min_size=1, max_size=4), st.text("ab*?[!]\n", max_size=8))
def test_a_text_fits_if_and_only_if_a_regular_expression_says_so(fixed_parts: list[str], text: str) -> None:
    assert fits_wildcards(text, fixed_parts) is bool(re.fullmatch(".*".join(map(re.escape, fixed_parts)), text, re.DOTALL))


def test_a_text_of_one_repeated_separator_is_checked_at_once() -> None:
    # A regular expression would take longer than the universe has existed.
    assert not fits_wildcards("a" * 128, [*["a"] * 60, "b", "a"])
