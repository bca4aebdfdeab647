"""Whether what somebody signed counts: their statement, their key, their groups, whom they answer for. No I/O, no clock.

Used three times for each answer: by the console before it is handed on, by the worker when it is counted, and by the session right
before the issue, which trusts neither. Input of any shape gets a verdict that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol, Self, TypeVar

from pydantic import ValidationError

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import (
    DecisionStatement,
    DelegationStatement,
    OrderStatement,
    ReviewStatement,
    SignedStatement,
    to_signable,
    why_not_valid_now,
    why_signature_invalid,
)
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.core.base_model import Message
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import BoundedTools, intersect_tools

Verdict = Literal["pending", "approved", "denied", "withdrawn"]
S = TypeVar("S", OrderStatement, DecisionStatement, DelegationStatement, ReviewStatement)

# What reading a stranger's JSON may raise: none of it is more than "not readable".
UNREADABLE_ERRORS = (ValidationError, ValueError, TypeError, OverflowError, RecursionError)
NOT_WAITING = "it names no request of this job that waits for an answer"


@dataclass(frozen=True, slots=True)
class Rejection:
    """It does not hold; one sentence says why."""

    why: str


class Withdrawal(Message):
    """One verified wish to take an approval back."""

    person: str
    name: str
    reason: str
    signed: SignedStatement


class PeopleDirectory(Protocol):
    """Who people are now, and what they have signed about each other. May raise where nobody can tell."""

    def person(self, entity: str) -> Person | None:
        """Return the person of this entity id; None for what is no person, or a disabled one."""

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        """Return their raw ed25519 public keys by version."""

    def delegation(self, person: str, delegate: str) -> SignedStatement | None:
        """Return what the person last signed to name this delegate, unless they ended it."""


class AnswerableRequest(Protocol):
    """What an answer must be about; a `Ladder` is one."""

    @property
    def request(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def ttl(self) -> int: ...
    @property
    def action(self) -> Action | None: ...
    @property
    def tools(self) -> BoundedTools | None: ...
    @property
    def current(self) -> int: ...
    def why_own_job(self, person: str) -> str | None: ...


def _no_further_check(request: str, answer: ApprovalAnswer) -> str | None:
    del request, answer
    return None


@dataclass(frozen=True, slots=True)
class ApprovalVerifier:
    """What answers are examined against: the people, the tiers, the moment."""

    people: PeopleDirectory
    tiers: Tiers
    now: datetime
    further_check: Callable[[str, ApprovalAnswer], str | None] = _no_further_check
    """Why an answer to a request does not count for want of what its person was to do elsewhere; asked only when answers are counted."""

    def verify_answer(self, job: str, request: AnswerableRequest, signed: SignedStatement) -> ApprovalAnswer | Rejection:
        """Return the answer that a signed decision is now, or why it does not count."""
        statement = self._verify_decision(job, request, signed)
        if isinstance(statement, Rejection):
            return statement
        if statement.decision == "withdraw":
            return Rejection("it takes an approval back and is no answer")
        person = self.verify_signer(statement.person, signed)
        if isinstance(person, Rejection):
            return person
        tier = self.tiers.tier_of(person.groups)
        if why := self._why_not_entitled_to(statement, person, tier):
            return Rejection(why)
        absent = self._verify_absent_person(statement, request)
        if isinstance(absent, Rejection):
            return absent
        return ApprovalAnswer(
            person=person.id,
            name=person.name,
            tier=tier,
            decision=statement.decision,
            ttl=statement.ttl,
            action=statement.action,
            tools=statement.tools,
            on_behalf_of=absent.id if absent else None,
            on_behalf_of_name=absent.name if absent else None,
            reason=statement.reason,
            at=statement.issued_at,
            signed=signed,
        )

    def verify_withdrawal(self, job: str, request: AnswerableRequest, signed: SignedStatement) -> Withdrawal | Rejection:
        """Return what takes an approval back. Giving access up needs less than giving it: nobody's own job is barred."""
        statement = self._verify_decision(job, request, signed)
        if isinstance(statement, Rejection):
            return statement
        if statement.decision != "withdraw":
            return Rejection("it does not take an approval back")
        person = self.verify_signer(statement.person, signed)
        if isinstance(person, Rejection):
            return person
        if not self.can_withdraw(person):
            return Rejection(f"{person.name} is in no group that approves or launches")
        return Withdrawal(person=person.id, name=person.name, reason=statement.reason, signed=signed)

    def can_withdraw(self, person: Person) -> bool:
        """Whether somebody may take approvals back: whoever approves at some tier, and whoever launches."""
        return self.tiers.tier_of(person.groups) > 0 or bool(person.groups & set(self.tiers.roles.launch))

    def count_answer(self, job: str, ladder: Ladder, signed: SignedStatement) -> Ladder | Rejection:
        """Return the ladder that a signed answer moves, that answer being its last, or why it moves none."""
        answer = self.verify_answer(job, ladder, signed)
        if isinstance(answer, Rejection):
            return answer
        moved = ladder.with_answer(answer)
        if isinstance(moved, str):
            return Rejection(moved)
        why = self.further_check(ladder.request, answer)
        return Rejection(why) if why else moved

    def recount_answers(
        self, job: str, ladder: Ladder, answers: Iterable[SignedStatement]
    ) -> tuple[Ladder, tuple[tuple[int, Rejection], ...]]:
        """Return the ladder with those of some answers that count now, and the number (from 1) of each that does not, with why."""
        refused: list[tuple[int, Rejection]] = []
        for number, signed in enumerate(answers, start=1):
            moved = self.count_answer(job, ladder, signed)
            if isinstance(moved, Rejection):
                refused.append((number, moved))
            else:
                ladder = moved
        return ladder, tuple(refused)

    def verify_signer(self, person: str, signed: SignedStatement) -> Person | Rejection:
        """Return the person as they are known now, their signature checked with their own key."""
        known = self.people.person(person)
        if known is None:
            return Rejection("whoever is named is no person here: no entity with a login on a people mount, or disabled")
        why = why_signature_invalid(signed, self.people.public_keys(known.id))
        return Rejection(why) if why else known

    def why_not_delegate(self, person: str, delegate: str, signed: SignedStatement | None) -> str | None:
        """Return why what a person signed does not make somebody their delegate now; None where it does."""
        statement = read_statement(DelegationStatement, signed) if signed else Rejection("")
        if signed is None or isinstance(statement, Rejection) or (statement.person, statement.delegate) != (person, delegate):
            return "whoever they answer for has not named them as a delegate"
        # What a renewal counts again was counted in the past, and a delegation may have been prolonged since: that takes nothing away.
        if why := why_not_valid_now(statement, now=max(self.now, statement.issued_at)):
            return f"they are no delegate now: {why}"
        absent = self.verify_signer(person, signed)
        return absent.why if isinstance(absent, Rejection) else None

    def _verify_decision(self, job: str, request: AnswerableRequest, signed: SignedStatement) -> DecisionStatement | Rejection:
        statement = read_statement(DecisionStatement, signed)
        if isinstance(statement, Rejection):
            return statement
        why = _why_decision_mismatch(statement, job, request) or why_not_valid_now(statement, now=self.now)
        return Rejection(why) if why else statement

    def _why_not_entitled_to(self, statement: DecisionStatement, person: Person, tier: int) -> str | None:
        if statement.decision == "break_glass":
            glass = self.tiers.roles.break_glass
            return (
                None if person.groups & set(glass) else f"{person.name} is in none of the groups that may break glass ({', '.join(glass)})"
            )
        return None if tier else f"{person.name} is in no group that answers requests"

    def _verify_absent_person(self, statement: DecisionStatement, request: AnswerableRequest) -> Person | Rejection | None:
        """Return whom somebody answers for, or why they do not; None where they answer for themselves."""
        absent = statement.on_behalf_of
        if absent is None:
            return None
        if statement.decision == "break_glass":
            return Rejection("nobody breaks glass on another's behalf")
        if theirs := request.why_own_job(absent):
            return Rejection(theirs)
        if why := self.why_not_delegate(absent, statement.person, self.people.delegation(absent, statement.person)):
            return Rejection(why)
        known = self.people.person(absent)
        if known is None or self.tiers.tier_of(known.groups) < request.current:
            return Rejection(f"the request is at tier {request.current}, which whoever they answer for does not answer for")
        return known


@dataclass(frozen=True, slots=True)
class RequestTally:
    """Where one request stands while what was sent is examined, one after the other."""

    ladder: Ladder
    verdict: Verdict = "pending"
    last: ApprovalAnswer | Withdrawal | None = None
    """What brought it here."""

    def with_signed(self, verifier: ApprovalVerifier, job: str, signed: SignedStatement) -> Self | Rejection:
        """Return where the request stands after something signed came, or why that changes nothing."""
        if signed.statement.get("decision") == "withdraw":
            return self._with_withdrawal(verifier, job, signed)
        if self.verdict != "pending":
            return Rejection(NOT_WAITING)
        moved = verifier.count_answer(job, self.ladder, signed)
        if isinstance(moved, Rejection):
            return moved
        return replace(self, ladder=moved, verdict=moved.verdict(verifier.tiers), last=moved.answers[-1])

    def _with_withdrawal(self, verifier: ApprovalVerifier, job: str, signed: SignedStatement) -> Self | Rejection:
        if self.verdict not in {"pending", "approved"}:
            return Rejection(NOT_WAITING)
        seen = verifier.verify_withdrawal(job, self.ladder, signed)
        if isinstance(seen, Rejection):
            return seen
        if self.verdict == "pending" and not any(answer.person == seen.person for answer in self.ladder.answers):
            return Rejection("this person has approved nothing here that could be taken back")
        verdict: Verdict = "pending" if self.verdict == "pending" else "withdrawn"
        return replace(self, ladder=self.ladder.without_answer_of(seen.person), verdict=verdict, last=seen)


def read_statement(model: type[S], signed: SignedStatement) -> S | Rejection:
    """Return the statement as typed; what is signed must be its one canonical form, nothing more and nothing spelt otherwise."""
    kind = model.model_fields["type"].default
    try:
        statement = model.model_validate(signed.statement)
        exact = to_canonical_json(to_signable(statement)) == to_canonical_json(signed.statement)
    except UNREADABLE_ERRORS:
        return Rejection(f"this is not a statement of type {kind}")
    return statement if exact else Rejection(f"this is not a statement of type {kind} in its one exact form")


def needs_reason(decision: str, tier: int) -> bool:
    """Whether an answer at this tier must say why: all but an approval at the first."""
    return decision != "approve" or tier > 1


def _why_decision_mismatch(statement: DecisionStatement, job: str, request: AnswerableRequest) -> str | None:
    checks: Mapping[str, Callable[[], bool]] = {
        "the decision is for another job": lambda: statement.job == job,
        "the decision is for another request": lambda: statement.request == request.request,
        "the decision is for something else than what would run and be issued now": lambda: statement.digest == request.digest,
        "the decision is for another action": lambda: _is_action_within(statement, request),
        f"the decision's ttl is not between 1 and {request.ttl} seconds": lambda: 0 < statement.ttl <= request.ttl,
        "the decision gives no reason": lambda: bool(statement.reason.strip()) or not needs_reason(statement.decision, request.current),
    }
    bound = why_bounds_invalid(statement, request.tools)
    # Giving up what was approved for one's own job is nobody's to forbid.
    return first_failed(checks) or bound or (None if statement.decision == "withdraw" else request.why_own_job(statement.person))


def why_bounds_invalid(statement: DecisionStatement, tools: BoundedTools | None) -> str | None:
    """Return why a decision cannot bind tools as it does; None where it can, or binds none. `tools`: as they were requested."""
    if statement.tools is None:
        return None
    if statement.decision not in {"approve", "break_glass"}:
        return "only what is allowed is bound: a decision of this kind names no tools"
    if tools is None:
        return "it is not for access through tools, so there is nothing to bind: one call is approved with exactly its arguments"
    if unknown := sorted(statement.tools.keys() - tools.keys()):
        return (
            f"it binds {', '.join(unknown)}, which was not requested; there {'are' if len(tools) > 1 else 'is'} {', '.join(sorted(tools))}"
        )
    if nothing := sorted(statement.tools.keys() - intersect_tools(tools, statement.tools).keys()):
        return f"no call of {', '.join(nothing)} would be left within what was requested"
    return None


def _is_action_within(statement: DecisionStatement, request: AnswerableRequest) -> bool:
    if request.action is None or statement.action == request.action:
        return True
    return statement.decision in {"approve", "break_glass"} and statement.action.rank < request.action.rank


def first_failed(checks: Mapping[str, Callable[[], bool]]) -> str | None:
    """Return the first of some sentences whose check does not hold."""
    return next((why for why, holds in checks.items() if not holds()), None)
