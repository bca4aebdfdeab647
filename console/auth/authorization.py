"""Decides who may do what, by group. Pure: takes a caller, the tiers and a job's requester; raises Forbidden, which names the missing group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from justenough.domain.approvals.tiers import MAX_TIER, Person, Tiers
from justenough.domain.core.errors import Forbidden


class Role(StrEnum):
    LAUNCH = "launch"
    APPROVE = "approve"
    READ = "read"
    BREAK_GLASS = "break_glass"


READING_ROLES = (Role.APPROVE, Role.READ, Role.BREAK_GLASS)
"""Roles that may read everything. A launcher may read their own jobs."""
STOPPING_ROLES = (Role.APPROVE, Role.BREAK_GLASS)
"""Roles that may stop any job and revoke any access. A launcher may do so for their own jobs."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified person, the tiers that give their groups rights, and when their token expires."""

    person: Person
    tiers: Tiers
    expires: float
    """Seconds since the epoch."""

    @property
    def tier(self) -> int:
        """The highest tier at which they may decide; 0 for none."""
        return self.tiers.tier_of(self.person.groups)

    @property
    def review_tier(self) -> int:
        """The highest tier whose bypassing they may review. The top tier also reviews for tiers that have left approvals.yaml since."""
        return MAX_TIER if self.tier and self.tier == self.tiers.top else self.tier

    @property
    def roles(self) -> frozenset[Role]:
        return frozenset(role for role in Role if self.person.groups & groups_with_role(role, self.tiers))

    @property
    def can_read_all(self) -> bool:
        return bool(self.person.groups & self.tiers.reading_groups)

    @property
    def requester_filter(self) -> str | None:
        """The requester whose jobs they may read; None for all jobs."""
        return None if self.can_read_all else self.person.id

    def can_read_jobs_of(self, requester_id: str) -> bool:
        return self.can_read_all or (Role.LAUNCH in self.roles and requester_id == self.person.id)

    def can_stop_jobs_of(self, requester_id: str) -> bool:
        """Whether they may stop this person's jobs, revoke their credentials and withdraw approvals of their requests."""
        return bool(self.roles & set(STOPPING_ROLES)) or (Role.LAUNCH in self.roles and requester_id == self.person.id)

    @property
    def who_may_stop(self) -> str:
        """The message for a person who may not stop a job: who may."""
        groups = {group for role in STOPPING_ROLES for group in groups_with_role(role, self.tiers)}
        return f"only the job's launcher may do this, or a member of: {', '.join(sorted(groups))}"

    def require_right_to_stop(self, requester_id: str) -> None:
        """Raise Forbidden, naming the groups, if they may not stop this person's jobs."""
        if not self.can_stop_jobs_of(requester_id):
            raise Forbidden(self.who_may_stop)

    def require_tier(self, tier: int) -> None:
        """Raise Forbidden, naming the groups, if they may not decide at this tier."""
        if self.tier < max(tier, 1):
            raise Forbidden(missing_group_text(answering_groups(tier, self.tiers)))

    def require(self, *roles: Role) -> None:
        """Raise Forbidden, naming the groups, if they have none of these roles."""
        if not self.roles & set(roles):
            raise Forbidden(missing_group_text(group for role in roles for group in groups_with_role(role, self.tiers)))


def groups_with_role(role: Role, tiers: Tiers) -> frozenset[str]:
    match role:
        case Role.LAUNCH:
            return frozenset(tiers.roles.launch)
        case Role.READ:
            return frozenset(tiers.roles.read)
        case Role.APPROVE:
            return tiers.approver_groups
        case Role.BREAK_GLASS:
            return frozenset(tiers.roles.break_glass)


def answering_groups(tier: int, tiers: Tiers) -> frozenset[str]:
    """Return the groups that may decide at a tier: its own and those of the tiers above."""
    return frozenset(group for number, definition in tiers.tiers.items() if number >= tier for group in definition.approvers)


def missing_group_text(groups: Iterable[str]) -> str:
    named = ", ".join(sorted(set(groups)))
    return f"needs one of the groups: {named}" if named else "no group has this right (approvals.yaml)"
