"""Decisions of policy in words, in cases that the shop's policies do not cover."""

from __future__ import annotations

from typing import Any

from console.presentation.policy_text import dependency_labels, tiers


def explained(number: int, *policies: str, allows: bool) -> dict[str, Any]:
    """Return the result at one tier, as `policy explain` has it."""
    approvers = {"name": "owner", "quorum": 2, "approvers": ["leads"]} if number else {"name": "", "quorum": 0, "approvers": []}
    return {"tier": number, "policies": policies, "allows": allows, **approvers}


def test_each_tier_is_listed_if_a_lower_one_allows_what_a_higher_one_does_not() -> None:
    request = {"outcome": "denied", "tier": None, "tiers": [explained(0, "low", allows=True), explained(1, allows=False)]}
    assert list(tiers(request)) == [
        "with no approval: allowed (low)",
        "with tier 1, owner (2 of leads): not allowed (no policy)",
    ]


def test_a_policy_that_passes_on_a_whole_entity_may_depend_on_any_attribute() -> None:
    assert dependency_labels([("context", "hour"), ("principal", "*")]) == ("any attribute of the job",)
