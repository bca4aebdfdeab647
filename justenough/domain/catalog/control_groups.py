"""The control groups of locked actions: whose authorizations Vault requires, how many, and for how long. Pure.

A locked action (`lock: control_group`) has a control group in its grant policy: Vault issues its credential only after people of
these groups have authorized it in Vault with their own tokens (docs/how-to/double-lock.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from justenough.domain.approvals.tiers import Tiers, seconds_to_pass
from justenough.domain.catalog.models import ActionDef, Catalog
from justenough.domain.core.errors import Problem
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action

WAIT_MARGIN_S = 2 * 3600
"""Seconds that a pending credential outlives its tiers' deadlines: time for a session to start and to issue."""


@dataclass(frozen=True, slots=True)
class ControlGroupRule:
    """The authorizations that Vault requires before it issues."""

    groups: tuple[str, ...]
    approvals: int
    """Distinct people of these groups."""
    ttl: int
    """Lifetime in Vault of the pending credential and of each authorization, in seconds."""

    def token_ttl(self, action: ActionDef) -> int:
        """Return the ttl of the requesting token in seconds: it must outlive the wait and then the grant."""
        return self.ttl + action.max_ttl


def control_group_of(action: ActionDef, tiers: Tiers) -> ControlGroupRule | None:
    """Return the control group of an action; None if it is not locked or names a missing tier (see `control_group_problems`)."""
    if action.least_tier not in tiers.tiers:
        return None
    able = [tiers.tiers[number] for number in sorted(tiers.tiers) if number >= action.least_tier]
    groups = tuple(dict.fromkeys(group for tier in able for group in tier.approvers))
    # Use the time of all tiers: another request of the same job may escalate from the lowest tier, and the job waits for it.
    return ControlGroupRule(groups=groups, approvals=able[0].quorum, ttl=seconds_to_pass(tiers.tiers) + WAIT_MARGIN_S)


def why_not_narrowable(catalog: Catalog, resource: str, requested: Action, granted: Action) -> Rejection | None:
    """Return why a lock refuses to grant less than the requested action; None if none does."""
    both = (catalog.action(resource, action) for action in (requested, granted))
    if requested == granted or not any(action is not None and action.locked for action in both):
        return None
    message = (
        f"{resource}:{requested} cannot be narrowed to {granted}, because a Vault control group covers at least one of them: "
        "approve it as requested, or deny it"
    )
    return Rejection("locked_action_narrowed", message)


def control_group_problems(catalog: Catalog, tiers: Tiers) -> Iterator[Problem]:
    """Yield a problem, with its path in the catalog, for each reason why the people of the configured tiers could not open a lock."""
    for where, action in catalog.iter_actions():
        if not action.locked:
            continue
        lock, least = control_group_of(action, tiers), action.least_tier
        if lock is None:
            present = ", ".join(map(str, sorted(tiers.tiers))) or "none"
            yield Problem(f"{where}.lock_tier", f"approvals.yaml has no tier {least}; it has {present}")
            continue
        for number, tier in sorted(tiers.tiers.items()):
            if number > least and tier.quorum < lock.approvals:
                quorums = f"Vault requires {lock.approvals} people (tier {least}'s quorum), but tier {number} approves with {tier.quorum}"
                fix = f"raise tier {number}'s quorum in approvals.yaml, or set lock_tier: {number}"
                yield Problem(f"{where}.lock_tier", f"{quorums}, so Vault would never issue; {fix}")
