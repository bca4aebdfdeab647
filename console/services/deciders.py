"""Who can decide: groups with the login names of their members, as far as Vault lists them. Blocking, for a thread."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from justenough.domain.approvals.tiers import Tiers
from justenough.services.dependencies import Deps


class GroupMembers(NamedTuple):
    """A group that can decide, and the login names of its members; none if Vault does not list them."""

    group: str
    names: tuple[str, ...]


def group_members(deps: Deps, groups: Iterable[str], *, without: Container[str] = ()) -> tuple[GroupMembers, ...]:
    """Return groups with their members. `without`: login names of people who cannot decide."""
    mounts = deps.settings.people_mounts
    return tuple(
        GroupMembers(group, tuple(name for name in deps.vault.member_names(group, mounts) if name not in without)) for group in groups
    )


def tier_deciders(deps: Deps, tiers: Tiers, number: int, *, without: Container[str] = ()) -> tuple[GroupMembers, ...]:
    """Return the approver groups of a tier with their members; empty if there is no such tier."""
    tier = tiers.tiers.get(number)
    return group_members(deps, tier.approvers, without=without) if tier else ()
