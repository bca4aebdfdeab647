"""The policies that apply to a request at each tier, and the tier it needs: arithmetic on Cedar's result. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from cedarpy import pst

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.policy.cedar_source import PolicyRule

TIERS = range(MAX_TIER + 1)


@dataclass(frozen=True, slots=True)
class Remainder:
    """What remains of a policy for one action on one resource, at some tiers, once the known values are filled in."""

    rule: PolicyRule
    tiers: frozenset[int]
    template: pst.Template

    @property
    def unconditional(self) -> bool:
        """Whether it applies to every requester in all circumstances."""
        any_principal = isinstance(self.template.principal, pst.ScopeAny | pst.ScopeIs)
        this_resource = isinstance(self.template.resource, pst.ScopeAny | pst.ScopeIs | pst.ScopeEq)
        return any_principal and this_resource and not self.template.clauses


@dataclass(frozen=True, slots=True)
class TierResult:
    """The policies that apply to a request at each tier; meaningless if there are errors."""

    permits: tuple[tuple[str, ...], ...] = ((),) * (MAX_TIER + 1)
    """`@id`s, by tier from 0."""
    forbids: tuple[tuple[str, ...], ...] = ((),) * (MAX_TIER + 1)
    erring: tuple[str, ...] = ()
    """`@id`s of the policies with evaluation errors, as far as they are known."""
    errors: tuple[str, ...] = ()

    def allows(self, tier: int) -> bool:
        """Whether Cedar's decision at this tier is Allow, regardless of other tiers."""
        return bool(self.permits[tier]) and not self.forbids[tier]

    def needed_tier(self, top: int) -> int | None:
        """Return the lowest tier such that it and every tier above it allow; None if there is none."""
        tier = top + 1
        while tier > 0 and self.allows(tier - 1):
            tier -= 1
        return tier if tier <= top else None

    def with_least_tier(self, tier: int, by: str) -> Self:
        """Return a copy in which `by` forbids every tier below `tier`."""
        return replace(self, forbids=tuple((*rules, by) if number < tier else rules for number, rules in enumerate(self.forbids)))

    def without_policies(self, rules: Iterable[str]) -> Self:
        removed = frozenset(rules)

        def remove(tiers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
            return tuple(tuple(rule for rule in applying if rule not in removed) for applying in tiers)

        return replace(self, permits=remove(self.permits), forbids=remove(self.forbids))
