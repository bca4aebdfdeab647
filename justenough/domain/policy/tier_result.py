"""Which policies hold for one request at which tier, and the tier that it needs: plain arithmetic over Cedar's answer. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from cedarpy import pst

from justenough.domain.policy.cedar_source import PolicyRule

MAX_TIER = 3
TIERS = range(MAX_TIER + 1)


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of a policy for one action on one resource, at some tiers."""

    rule: PolicyRule
    tiers: frozenset[int]
    template: pst.Template

    @property
    def unconditional(self) -> bool:
        """Whether it holds whoever asks, whatever the circumstances."""
        anyone = isinstance(self.template.principal, pst.ScopeAny | pst.ScopeIs)
        this = isinstance(self.template.resource, pst.ScopeAny | pst.ScopeIs | pst.ScopeEq)
        return anyone and this and not self.template.clauses


@dataclass(frozen=True, slots=True)
class TierResult:
    """Which policies hold for one request, tier by tier; with errors, none of it counts."""

    permits: tuple[tuple[str, ...], ...] = ((),) * (MAX_TIER + 1)
    """`@id`s, by tier from 0."""
    forbids: tuple[tuple[str, ...], ...] = ((),) * (MAX_TIER + 1)
    erring: tuple[str, ...] = ()
    """`@id`s of the policies that erred, as far as they are known."""
    errors: tuple[str, ...] = ()

    def allows(self, tier: int) -> bool:
        """Whether Cedar says Allow at a tier, looked at alone."""
        return bool(self.permits[tier]) and not self.forbids[tier]

    def needed_tier(self, top: int) -> int | None:
        """Return the least tier such that it and every one above allow, None where there is none."""
        tier = top + 1
        while tier > 0 and self.allows(tier - 1):
            tier -= 1
        return tier if tier <= top else None

    def with_least_tier(self, tier: int, by: str) -> Self:
        """Return what holds where something beside policy forbids every tier below one."""
        return replace(self, forbids=tuple((*held, by) if number < tier else held for number, held in enumerate(self.forbids)))

    def without_policies(self, rules: Iterable[str]) -> Self:
        """Return what would hold if these policies were not there."""
        gone = frozenset(rules)

        def remove(tiers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
            return tuple(tuple(rule for rule in held if rule not in gone) for held in tiers)

        return replace(self, permits=remove(self.permits), forbids=remove(self.forbids))
