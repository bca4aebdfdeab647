"""Approval arithmetic: tiers, quorum, climbing, expiry, who may answer. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, field_validator

from justenough.domain.core.base_model import Message, Model
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.units import Duration
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.jobs.spec import Name

APPROVALS_FILE = "approvals.yaml"


MAX_TIER = 3


TIER_NUMBERS = tuple(str(number) for number in range(1, MAX_TIER + 1))


class Tier(Model):
    """Who answers at one tier, how many of them are needed, and how long they have."""

    name: Name
    approvers: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Groups."""
    quorum: Annotated[int, Field(ge=1, le=20)] = 1
    """Distinct people."""
    respond_within: Annotated[Duration, Field(le=7 * 24 * 3600)]
    """Seconds."""


class Roles(Model):
    """Which groups may do what beside approving."""

    launch: tuple[Name, ...] = ()
    read: tuple[Name, ...] = ()
    break_glass: tuple[Name, ...] = ("break-glass",)
    """May pass a tier alone, with a reason; each time is reviewed afterwards."""


class Tiers(Model):
    """approvals.yaml: the tiers from 1 up, without a gap, and the roles."""

    roles: Roles = Roles()
    tiers: Mapping[Annotated[int, Field(ge=1, le=MAX_TIER)], Tier]

    @field_validator("tiers")
    @classmethod
    def _no_gap(cls, tiers: Mapping[int, Tier]) -> Mapping[int, Tier]:
        if sorted(tiers) != list(range(1, len(tiers) + 1)):
            message = f"tiers must be numbered 1, 2, … without a gap; found {sorted(tiers)}"
            raise ValueError(message)
        return tiers

    @property
    def top(self) -> int:
        """The highest tier; 0 where there is none."""
        return max(self.tiers, default=0)

    def tier_of(self, groups: frozenset[str]) -> int:
        """Return the highest tier that a member of these groups may answer for; 0 for none."""
        return max((number for number, tier in self.tiers.items() if groups & set(tier.approvers)), default=0)

    def respond_by(self, tier: int, *, now: datetime) -> datetime:
        """Return until when a tier that opens now has time."""
        return now + timedelta(seconds=self.tiers[tier].respond_within)

    @property
    def approver_groups(self) -> frozenset[str]:
        """Every group that answers at some tier."""
        return frozenset(group for tier in self.tiers.values() for group in tier.approvers)


class Person(Message):
    """A person as Vault knows them now: an entity with an alias on a people mount, not disabled."""

    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    groups: frozenset[str] = frozenset()


def read_tiers(text: str | bytes) -> Tiers:
    """Return approvals.yaml checked; raise InvalidInput with every problem by path."""
    raw: Any = read_yaml(APPROVALS_FILE, text)
    if not isinstance(raw, dict):
        raise InvalidInput(APPROVALS_FILE, (Problem("", "must be a mapping with `roles` and `tiers`"),))
    tiers = raw.get("tiers")
    # Keys are text here, so that a problem's path names them as they are written.
    unnumbered: list[str] = []
    if isinstance(tiers, dict):
        unnumbered = [key for key in tiers if key not in TIER_NUMBERS]
        raw = {**raw, "tiers": {key: value for key, value in tiers.items() if key in TIER_NUMBERS}}
    try:
        found = validate_model(APPROVALS_FILE, Tiers, raw)
    except InvalidInput as error:
        raise InvalidInput(APPROVALS_FILE, (*_numbering_problems(unnumbered), *error.problems)) from error
    if unnumbered:
        raise InvalidInput(APPROVALS_FILE, _numbering_problems(unnumbered))
    return found


def _numbering_problems(keys: list[str]) -> tuple[Problem, ...]:
    return tuple(Problem(f"tiers.{key}", f"tiers are numbered 1 to {MAX_TIER}") for key in keys)
