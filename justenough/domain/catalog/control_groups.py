"""The double lock: which groups Vault itself asks before it issues a locked action, how many of them, and for how long. Pure.

A locked action (`lock: control_group`) has a control group in its grant policy: what a token under it asks for is issued only once people of
these groups have authorized it in Vault, with tokens of their own (docs/how-to/double-lock.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.models import ActionDef, Catalog
from justenough.domain.core.errors import Problem
from justenough.domain.core.units import duration_text
from justenough.domain.core.vault_names import HARD_END_HOURS

WAIT_MARGIN_S = 2 * 3600
"""Seconds that a lock outlasts its tiers: until a session has a place, and until it has issued."""
MAX_TOKEN_TTL_S = HARD_END_HOURS[-1] * 3600
"""Seconds that a job's token may live at most."""


@dataclass(frozen=True, slots=True)
class ControlGroupRule:
    """What Vault wants before it issues."""

    groups: tuple[str, ...]
    approvals: int
    """Distinct people of these groups."""
    ttl: int
    """Seconds that what waits, and each authorization, lives in Vault."""

    def token_ttl(self, action: ActionDef) -> int:
        """Return the seconds that the token which asked must live: to the end of the waiting, and then through the grant."""
        return self.ttl + action.max_ttl


def control_group_of(action: ActionDef, tiers: Tiers) -> ControlGroupRule | None:
    """Return the lock of an action; None for one that has none, or that names a tier without approvers (see `control_group_problems`)."""
    if action.least_tier not in tiers.tiers:
        return None
    able = [tiers.tiers[number] for number in sorted(tiers.tiers) if number >= action.least_tier]
    groups = tuple(dict.fromkeys(group for tier in able for group in tier.approvers))
    # All tiers' time, not this one's and above: another request of the same job may climb from the lowest, and the job waits for it.
    waiting = sum(tier.respond_within for tier in tiers.tiers.values())
    return ControlGroupRule(groups=groups, approvals=able[0].quorum, ttl=waiting + WAIT_MARGIN_S)


def control_group_problems(catalog: Catalog, tiers: Tiers) -> Iterator[Problem]:
    """Yield what keeps the catalog's locks from being opened by the tiers that there are, by the catalog's paths."""
    for name, resource in catalog.resources.items():
        for action, definition in resource.actions.items():
            if definition.locked:
                where = f"resources.{name}.actions.{action}"
                yield from (Problem(f"{where}.{part}", why) for part, why in _action_problems(definition, tiers))


def _action_problems(action: ActionDef, tiers: Tiers) -> Iterator[tuple[str, str]]:
    lock, least = control_group_of(action, tiers), action.least_tier
    if lock is None:
        yield "lock_tier", f"approvals.yaml has no tier {least}; it has {', '.join(map(str, sorted(tiers.tiers))) or 'none'}"
        return
    for number, tier in sorted(tiers.tiers.items()):
        if number > least and tier.quorum < lock.approvals:
            wants = f"Vault would want {lock.approvals} people, tier {least}'s quorum, and tier {number} approves with {tier.quorum}"
            yield "lock_tier", f"{wants}: that could not be issued; raise its quorum in approvals.yaml, or say lock_tier: {number}"
    if lock.token_ttl(action) > MAX_TOKEN_TTL_S:
        asked, most = duration_text(lock.token_ttl(action)), duration_text(MAX_TOKEN_TTL_S)
        yield "lock", f"the tiers' time to answer and max_ttl come to {asked}, and nothing can wait in Vault longer than {most}"
