"""Approval arithmetic: tiers, quorum, climbing, expiry, who may answer. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from justenough.access import Action
from justenough.documents import read_yaml, validated
from justenough.errors import InvalidInput, Problem
from justenough.model import Duration, Message, Model
from justenough.spec import Name
from justenough.statements import Signed

APPROVALS = "approvals.yaml"
TOP = 3
NUMBERS = tuple(str(number) for number in range(1, TOP + 1))


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


class Tiers(Model):
    """approvals.yaml: the tiers from 1 up, without a gap, and the roles."""

    roles: Roles = Roles()
    tiers: Mapping[Annotated[int, Field(ge=1, le=TOP)], Tier]

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


class Answer(Message):
    """One verified answer: whose, what, and the highest tier that person may answer for."""

    person: str
    name: str
    tier: int
    decision: Literal["approve", "deny"]
    ttl: int
    """Seconds; at most what was requested."""
    reason: str
    at: datetime
    signed: Signed


class Ladder(Message):
    """Where one request stands: the tier it needs, the tier it is at, until when, and the answers that counted so far."""

    request: str
    digest: str
    action: Action | None = None
    requester: str
    """Entity id of who launched the job; never counts."""
    needed: int
    current: int
    respond_by: datetime
    ttl: int
    answers: tuple[Answer, ...] = ()

    def answered(self, answer: Answer) -> Self | str:
        """Return the ladder with one more answer, or why it does not count."""
        if answer.person == self.requester:
            return "no one answers for a job that they launched"
        if answer.tier < self.current:
            return f"the request is at tier {self.current}, which this person does not answer for"
        if any(earlier.person == answer.person for earlier in self.answers):
            return "this person has answered already"
        return self.model_copy(update={"answers": (*self.answers, answer)})

    def climbed(self, tiers: Tiers, *, now: datetime) -> Self | None:
        """Return the ladder at the next tier, its lower tiers' answers dropped; None past the top."""
        if self.current >= tiers.top:
            return None
        tier = self.current + 1
        kept = tuple(answer for answer in self.answers if answer.tier >= tier)
        return self.model_copy(update={"current": tier, "respond_by": tiers.respond_by(tier, now=now), "answers": kept})

    def verdict(self, tiers: Tiers) -> Literal["pending", "approved", "denied"]:
        """Return what the answers so far amount to."""
        if any(answer.decision == "deny" for answer in self.answers):
            return "denied"
        return "approved" if has_quorum(self.answers, tiers=tiers, tier=self.current) else "pending"

    @property
    def granted_ttl(self) -> int:
        """Seconds that were granted: the least that any answer allowed."""
        return min((self.ttl, *(answer.ttl for answer in self.answers)))


def has_quorum(answers: tuple[Answer, ...], *, tiers: Tiers, tier: int) -> bool:
    """Whether enough distinct people of this tier or a higher one approved."""
    approvers = {answer.person for answer in answers if answer.decision == "approve" and answer.tier >= tier}
    return tier in tiers.tiers and len(approvers) >= tiers.tiers[tier].quorum


def read_tiers(text: str | bytes) -> Tiers:
    """Return approvals.yaml checked; raise InvalidInput with every problem by path."""
    raw: Any = read_yaml(APPROVALS, text)
    if not isinstance(raw, dict):
        raise InvalidInput(APPROVALS, (Problem("", "must be a mapping with `roles` and `tiers`"),))
    tiers = raw.get("tiers")
    # Keys are text here, so that a problem's path names them as they are written.
    unnumbered: list[str] = []
    if isinstance(tiers, dict):
        unnumbered = [key for key in tiers if key not in NUMBERS]
        raw = {**raw, "tiers": {key: value for key, value in tiers.items() if key in NUMBERS}}
    try:
        found = validated(APPROVALS, Tiers, raw)
    except InvalidInput as error:
        raise InvalidInput(APPROVALS, (*_unnumbered(unnumbered), *error.problems)) from error
    if unnumbered:
        raise InvalidInput(APPROVALS, _unnumbered(unnumbered))
    return found


def _unnumbered(keys: list[str]) -> tuple[Problem, ...]:
    return tuple(Problem(f"tiers.{key}", f"tiers are numbered 1 to {TOP}") for key in keys)
