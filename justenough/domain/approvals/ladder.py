"""The approval state of one request: answers, quorum, escalation, expiry. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, Self

from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.core.base_model import Message
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bounds, intersect_all


class ApprovalAnswer(Message):
    """One verified answer, with the highest tier at which its person may approve."""

    person: str
    name: str
    tier: int
    decision: Literal["approve", "deny", "break_glass"]
    ttl: int
    """Seconds; at most what was requested."""
    action: Action | None = None
    """At most the requested action; None in answers that were recorded before approvals could be narrowed."""
    tools: Mapping[str, Bounds] | None = None
    """The bounds that the person set on tools; None if they added none to the requested ones."""
    on_behalf_of: str | None = None
    """Entity id of the absent person this delegate answers for, if any."""
    on_behalf_of_name: str | None = None
    reason: str
    at: datetime
    signed: SignedStatement

    @property
    def represented_people(self) -> frozenset[str]:
        """The people this answer counts for: the person, and the absent person they answer for."""
        return frozenset({self.person, self.on_behalf_of or self.person})


class GrantTerms(Message):
    """The terms that a request's answers grant: the minimum over all answers."""

    action: Action
    ttl: int
    """Seconds."""
    break_glass: bool = False
    tools: Mapping[str, Bounds] | None = None
    """The tools that may use the access, each with the intersection of all bounds; None for a credential or a single call."""

    def narrowed_by(self, allowed: Iterable[Self]) -> Self:
        """Return the strictest of these terms and of those that each approver allowed."""
        every = (self, *allowed)
        bounds = [terms.tools for terms in every[1:] if terms.tools is not None]
        return self.model_copy(
            update={
                "action": min((terms.action for terms in every), key=lambda action: action.rank),
                "ttl": min(terms.ttl for terms in every),
                # If nobody set bounds, keep the requested tools unchanged, so that the grant does not count as narrowed.
                "tools": intersect_all(self.tools, *bounds) if self.tools is not None and bounds else self.tools,
            }
        )


class Ladder(Message):
    """The approval state of one request: the tier it needs, its current tier and deadline, and the answers that counted so far."""

    request: str
    digest: str
    action: Action | None = None
    requester: str
    """Entity id of the person who launched the job; their answers never count."""
    forebears: frozenset[str] = frozenset()
    """Entity ids of the people who launched an ancestor job, or who triggered this job or an ancestor; their answers never count either."""
    needed: int
    current: int
    respond_by: datetime
    ttl: int
    tools: Mapping[str, Bounds] | None = None
    """The requested tools and bounds; None if the request is not for access through tools."""
    answers: tuple[ApprovalAnswer, ...] = ()
    taken_back: frozenset[str] = frozenset()
    """People who withdrew an answer. They cannot answer this request again, because otherwise their old signed answer could be replayed."""

    def with_answer(self, answer: ApprovalAnswer) -> Self | Rejection:
        """Return the ladder with one more answer, or why that answer does not count."""
        if own_job := next(filter(None, map(self.why_own_job, answer.represented_people)), None):
            return own_job
        if answer.person in self.taken_back:
            return Rejection("answer_withdrawn", "this person withdrew their answer")
        if answer.decision != "break_glass" and answer.tier < self.current:
            return Rejection("tier_too_low", f"the request is at tier {self.current}, at which this person may not decide")
        if any(earlier.represented_people & answer.represented_people for earlier in self.answers):
            who = "this person" if answer.on_behalf_of is None else "the delegate or the absent person"
            return Rejection("already_answered", f"{who} has answered already")
        return self.model_copy(update={"answers": (*self.answers, answer)})

    def why_own_job(self, person: str) -> Rejection | None:
        """Return why a person may not answer because they launched the job or one of its ancestors, or None if they may."""
        if person == self.requester:
            return Rejection("own_job", "people cannot decide on a job that they launched")
        if person in self.forebears:
            return Rejection(
                "own_descendant_job", "people cannot decide on a job that they triggered, or on a descendant of a job that they launched"
            )
        return None

    def with_barred(self, *, forebears: frozenset[str], taken_back: frozenset[str] = frozenset()) -> Self:
        """Return the ladder with updated barred people: `forebears` replaces its list; `taken_back` is added to its list, and their answers
        are dropped.
        """
        answers = tuple(answer for answer in self.answers if answer.person not in taken_back)
        return self.model_copy(update={"forebears": forebears, "taken_back": self.taken_back | taken_back, "answers": answers})

    def without_answer_of(self, person: str) -> Self:
        """Return the ladder without one person's answer; they cannot answer this request again."""
        return self.with_barred(forebears=self.forebears, taken_back=frozenset({person}))

    def without(self, answers: Iterable[ApprovalAnswer]) -> Self:
        """Return the ladder without these answers, whose people can answer again."""
        dropped = frozenset(answer.person for answer in answers)
        return self.model_copy(update={"answers": tuple(answer for answer in self.answers if answer.person not in dropped)})

    def to_next_tier(self, tiers: Tiers, *, now: datetime) -> Self | None:
        """Return the ladder at the next tier, without answers from lower tiers, or None past the top."""
        if self.current >= tiers.top:
            return None
        tier = self.current + 1
        return self.at_tier(tier, respond_by=tiers.respond_by(tier, now=now))

    def at_tier(self, tier: int, *, respond_by: datetime) -> Self:
        """Return the ladder at a higher tier, without answers from lower tiers."""
        answers = tuple(answer for answer in self.answers if answer.tier >= tier)
        return self.model_copy(update={"current": tier, "respond_by": respond_by, "answers": answers})

    def verdict(self, tiers: Tiers) -> Literal["pending", "approved", "denied"]:
        """Return the request's state after the answers so far."""
        if any(answer.decision == "deny" for answer in self.answers):
            return "denied"
        return "approved" if self.broke_glass or has_quorum(self.answers, tiers=tiers, tier=self.current) else "pending"

    @property
    def broke_glass(self) -> bool:
        return any(answer.decision == "break_glass" for answer in self.answers)

    @property
    def grant(self) -> GrantTerms:
        """The minimum that the answers so far allow."""
        # Ladders and answers that were recorded before approvals could be narrowed have no action: each answer is for the requested one.
        requested = GrantTerms(action=self.action or Action.ADMIN, ttl=self.ttl, break_glass=self.broke_glass, tools=self.tools)
        return requested.narrowed_by(
            GrantTerms(action=answer.action or requested.action, ttl=answer.ttl, tools=answer.tools)
            for answer in self.answers
            if answer.decision != "deny"
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether the answers so far allow less than was requested."""
        grant = self.grant
        return grant.ttl < self.ttl or grant.tools != self.tools or (self.action is not None and grant.action is not self.action)


def has_quorum(answers: tuple[ApprovalAnswer, ...], *, tiers: Tiers, tier: int) -> bool:
    """Whether enough distinct people of this tier or a higher one approved."""
    approvers = {answer.person for answer in answers if answer.decision == "approve" and answer.tier >= tier}
    return tier in tiers.tiers and len(approvers) >= tiers.tiers[tier].quorum
