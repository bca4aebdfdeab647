"""Who can decide: groups with the login names of their members, as far as Vault lists them. Blocking, for a thread."""

from __future__ import annotations

from collections.abc import Container, Iterable
from contextlib import suppress
from typing import NamedTuple

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.core.errors import RetryLater
from justenough.services.dependencies import Deps
from justenough.services.parent_chain import NoSuchParent, ancestor_launchers, console_requester_of


class GroupMembers(NamedTuple):
    """A group that can decide, and the login names of its members; none if Vault does not list them."""

    group: str
    names: tuple[str, ...]
    nobody_else: bool = False
    """Whether Vault lists members, and none of them can decide."""


def group_members(deps: Deps, groups: Iterable[str], *, without: Container[str] = ()) -> tuple[GroupMembers, ...]:
    """Return groups with their members, except `without`: entity ids of people who cannot decide."""
    listed = {group: deps.vault.members(group, deps.settings.people_mounts) for group in groups}
    able = {group: tuple(person.name for person in people if person.id not in without) for group, people in listed.items()}
    return tuple(GroupMembers(group, able[group], nobody_else=bool(people) and not able[group]) for group, people in listed.items())


def tier_deciders(deps: Deps, tiers: Tiers, number: int) -> tuple[GroupMembers, ...]:
    """Return the approver groups of a tier with their members; empty if there is no such tier."""
    tier = tiers.tiers.get(number)
    return group_members(deps, tier.approvers) if tier else ()


def barred_people(deps: Deps, job: str, *, parent: str | None) -> frozenset[str]:
    """Return the entity ids of the people, besides its launcher, who can decide none of a job's requests: those who launched its ancestors or
    had the console order the job. Empty if they cannot be read now.
    """
    with suppress(NoSuchParent, RetryLater):
        return ancestor_launchers(deps, parent, asked_by=console_requester_of(deps, job))
    return frozenset()


def deciders_from(deps: Deps, tiers: Tiers, number: int, *, without: Container[str] = ()) -> tuple[GroupMembers, ...]:
    """Return everybody who can decide at a tier, with their members: its approver groups first, then those of the tiers above it."""
    groups = dict.fromkeys(group for level, tier in sorted(tiers.tiers.items()) if level >= number for group in tier.approvers)
    return group_members(deps, groups, without=without)
