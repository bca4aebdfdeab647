"""Tiers in words, and which tiers a break-glass approval bypasses."""

from __future__ import annotations

import pytest

from justenough.domain.approvals.tier_names import bypassed_tiers, tiers_text


@pytest.mark.parametrize("needed, current, bypassed", [(1, 1, (1,)), (2, 2, (2,)), (1, 2, (1, 2)), (1, 3, (1, 2, 3))])
def test_break_glass_bypasses_the_needed_tier_and_each_further_one_up_to_the_current_one(
    needed: int, current: int, bypassed: tuple[int, ...]
) -> None:
    assert bypassed_tiers(needed, current) == bypassed


@pytest.mark.parametrize(
    "numbers, names, text",
    [
        ((1,), ("owner",), "tier 1 (owner)"),
        ((1, 2), ("owner", "security"), "tier 1 (owner) and tier 2 (security)"),
        ((1, 2, 3), ("owner", "security", "chief"), "tier 1 (owner), tier 2 (security) and tier 3 (chief)"),
        ((1, 2), (), "tier 1 and tier 2"),
    ],
)
def test_tiers_are_written_with_their_names(numbers: tuple[int, ...], names: tuple[str, ...], text: str) -> None:
    assert tiers_text(numbers, names) == text
