"""Approval arithmetic: tiers, quorum, climbing, expiry, who may answer. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from justenough.access import Action
from justenough.bounds import Bounds, Tools, all_of
from justenough.documents import read_yaml, validated
from justenough.errors import InvalidInput, Problem
from justenough.model import Duration, Message, Model
from justenough.spec import Name
from justenough.statements import Signed

APPROVALS = "approvals.yaml"
TOP = 3
OWN = "no one answers for a job that they launched"
CAME_OF_OWN = "no one answers for a job that came of one that they launched"
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
    break_glass: tuple[Name, ...] = ("break-glass",)
    """May pass a tier alone, with a reason; each time is reviewed afterwards."""


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
    decision: Literal["approve", "deny", "break_glass"]
    ttl: int
    """Seconds; at most what was requested."""
    action: Action | None = None
    """At most what was requested; None where it was recorded before anyone could allow less."""
    tools: Mapping[str, Bounds] | None = None
    """What they bind tools to; None where they bind nothing beyond what was requested."""
    on_behalf_of: str | None = None
    """Entity id of who named this person their delegate, where they answer for them."""
    on_behalf_of_name: str | None = None
    reason: str
    at: datetime
    signed: Signed

    @property
    def voices(self) -> frozenset[str]:
        """Whose answer this is: one's own, and that of whoever it is given for."""
        return frozenset({self.person, self.on_behalf_of or self.person})


class Grant(Message):
    """What a request's answers allow: the least of what each allows."""

    action: Action
    ttl: int
    """Seconds."""
    break_glass: bool = False
    tools: Mapping[str, Bounds] | None = None
    """The tools that it is had through, each within all that anybody bound it to; None where it is had as a credential, or for one call."""


class Ladder(Message):
    """Where one request stands: the tier it needs, the tier it is at, until when, and the answers that counted so far."""

    request: str
    digest: str
    action: Action | None = None
    requester: str
    """Entity id of who launched the job; never counts."""
    forebears: frozenset[str] = frozenset()
    """Entity ids of who launched the jobs that this one came of, or had the console launch them or it; they never count either."""
    needed: int
    current: int
    respond_by: datetime
    ttl: int
    tools: Mapping[str, Bounds] | None = None
    """As requested, where it is for access through tools."""
    answers: tuple[Answer, ...] = ()
    taken_back: frozenset[str] = frozenset()
    """Who took an answer back. They do not answer this request again: what they signed once could be sent once more."""

    def answered(self, answer: Answer) -> Self | str:
        """Return the ladder with one more answer, or why it does not count."""
        if why := next(filter(None, map(self.why_theirs, answer.voices)), None):
            return why
        if answer.person in self.taken_back:
            return "this person took their answer back"
        if answer.decision != "break_glass" and answer.tier < self.current:
            return f"the request is at tier {self.current}, which this person does not answer for"
        # `without` drops them; a ladder that says who took theirs back and still has it is none that we made.
        kept = tuple(earlier for earlier in self.answers if earlier.person not in self.taken_back)
        if any(earlier.voices & answer.voices for earlier in kept):
            return "this person has answered already" if answer.on_behalf_of is None else "one of the two has answered already"
        return self.model_copy(update={"answers": (*kept, answer)})

    def why_theirs(self, person: str) -> str | None:
        """Return why the job is somebody's own, for which they do not answer; None where it is not."""
        if person == self.requester:
            return OWN
        return CAME_OF_OWN if person in self.forebears else None

    def without(self, person: str) -> Self:
        """Return the ladder without what one person said, for good."""
        kept = tuple(answer for answer in self.answers if answer.person != person)
        return self.model_copy(update={"answers": kept, "taken_back": self.taken_back | {person}})

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
        return "approved" if self.broke_glass or has_quorum(self.answers, tiers=tiers, tier=self.current) else "pending"

    @property
    def broke_glass(self) -> bool:
        """Whether somebody passed the tier alone."""
        return any(answer.decision == "break_glass" for answer in self.answers)

    @property
    def grant(self) -> Grant:
        """What the answers so far allow: the least that any of them does."""
        allowed = [answer for answer in self.answers if answer.decision != "deny"]
        # What was recorded before anyone could allow less says no action: there every answer is for what was asked.
        actions = [action for action in (self.action, *(answer.action for answer in allowed)) if action is not None]
        return Grant(
            action=min(actions, key=lambda each: each.rank, default=Action.ADMIN),
            ttl=min((self.ttl, *(answer.ttl for answer in allowed))),
            break_glass=self.broke_glass,
            tools=self._tools(allowed),
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether the answers so far allow less than was asked for."""
        grant = self.grant
        return grant.ttl < self.ttl or grant.tools != self.tools or (self.action is not None and grant.action is not self.action)

    def _tools(self, allowed: Iterable[Answer]) -> Tools | None:
        bound = [answer.tools for answer in allowed if answer.tools is not None]
        # As it was requested where nobody bound it: what is the same is not to look narrower.
        return all_of(self.tools, *bound) if self.tools is not None and bound else self.tools


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
