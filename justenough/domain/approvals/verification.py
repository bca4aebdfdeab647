"""Verifies signed answers: statement, signature, groups, delegation. No I/O, no clock.

Each answer is verified three times: by the console before it signals, by the worker when it counts, and by the session right before it
issues, which trusts neither. Input of any shape gets a verdict.
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
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.tool_bounds import BoundedTools, intersect_tools

Verdict = Literal["pending", "approved", "denied", "withdrawn"]
S = TypeVar("S", OrderStatement, DecisionStatement, DelegationStatement, ReviewStatement)

# What reading untrusted JSON may raise: all of it means "not readable".
UNREADABLE_ERRORS = (ValidationError, ValueError, TypeError, OverflowError, RecursionError)
NOT_WAITING = Rejection("request_not_waiting", "it names no request of this job that waits for an answer")


class Withdrawal(Message):
    """A verified withdrawal of an approval."""

    person: str
    name: str
    reason: str
    signed: SignedStatement


class PeopleDirectory(Protocol):
    """Looks up people, their keys and their delegations. May raise RetryLater."""

    def person(self, entity: str) -> Person | None:
        """Return the person with this entity id, or None if there is none or they are disabled."""

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        """Return their raw ed25519 public keys by version."""

    def delegation(self, person: str, delegate: str) -> SignedStatement | None:
        """Return the person's latest delegation to this delegate, or None if there is none or they ended it."""


@dataclass(frozen=True, slots=True)
class ApprovalVerifier:
    """Verifies answers against the people, the tiers and a point in time."""

    people: PeopleDirectory
    tiers: Tiers
    now: datetime
    further_check: Callable[[str, ApprovalAnswer], Rejection | None] | None = None
    """Checks, when answers are counted, what the approver had to do outside JustEnough; gets the request's id and the answer."""

    def verify_answer(self, job: str, ladder: Ladder, signed: SignedStatement) -> ApprovalAnswer | Rejection:
        """Return the answer that a signed decision gives, or why it does not count."""
        statement = self._verify_decision(job, ladder, signed)
        if isinstance(statement, Rejection):
            return statement
        if statement.decision == "withdraw":
            return Rejection("not_an_answer", "it takes an approval back and is no answer")
        person = self.verify_signer(statement.person, signed)
        if isinstance(person, Rejection):
            return person
        tier = self.tiers.tier_of(person.groups)
        if not_entitled := self._why_not_entitled_to(statement, person, tier):
            return not_entitled
        absent = self._verify_absent_person(statement, ladder)
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

    def verify_withdrawal(self, job: str, ladder: Ladder, signed: SignedStatement) -> Withdrawal | Rejection:
        """Return the withdrawal that a signed decision makes, or why it does not count. Unlike approving, it is allowed for one's own job."""
        statement = self._verify_decision(job, ladder, signed)
        if isinstance(statement, Rejection):
            return statement
        if statement.decision != "withdraw":
            return Rejection("not_a_withdrawal", "it does not take an approval back")
        person = self.verify_signer(statement.person, signed)
        if isinstance(person, Rejection):
            return person
        if not self.can_withdraw(person):
            return Rejection("not_entitled", f"{person.name} is in no group that approves or launches")
        return Withdrawal(person=person.id, name=person.name, reason=statement.reason, signed=signed)

    def can_withdraw(self, person: Person) -> bool:
        """Whether a person may withdraw approvals: approvers of any tier and launchers may."""
        return self.tiers.tier_of(person.groups) > 0 or bool(person.groups & set(self.tiers.roles.launch))

    def count_answer(self, job: str, ladder: Ladder, signed: SignedStatement) -> Ladder | Rejection:
        """Return the ladder with a signed answer added as its last, or why that answer does not count."""
        answer = self.verify_answer(job, ladder, signed)
        if isinstance(answer, Rejection):
            return answer
        moved = ladder.with_answer(answer)
        if isinstance(moved, Rejection):
            return moved
        rejection = self.further_check(ladder.request, answer) if self.further_check else None
        return rejection or moved

    def recount_answers(
        self, job: str, ladder: Ladder, answers: Iterable[SignedStatement]
    ) -> tuple[Ladder, tuple[tuple[int, Rejection], ...]]:
        """Return the ladder with the answers that count now, and the number (from 1) and the rejection of each that does not."""
        refused: list[tuple[int, Rejection]] = []
        for number, signed in enumerate(answers, start=1):
            moved = self.count_answer(job, ladder, signed)
            if isinstance(moved, Rejection):
                refused.append((number, moved))
            else:
                ladder = moved
        return ladder, tuple(refused)

    def verify_signer(self, person: str, signed: SignedStatement) -> Person | Rejection:
        """Check a statement's signature with its person's own keys; return the person, or why it is invalid."""
        known = self.people.person(person)
        if known is None:
            return Rejection("person_unknown", "whoever is named is no person here: no entity with a login on a people mount, or disabled")
        return why_signature_invalid(signed, self.people.public_keys(known.id)) or known

    def why_not_delegate(self, person: str, delegate: str, signed: SignedStatement | None) -> Rejection | None:
        """Return why a person's signed delegation does not make somebody their delegate now, or None if it does."""
        statement = read_statement(DelegationStatement, signed) if signed else None
        if signed is None or not isinstance(statement, DelegationStatement) or (statement.person, statement.delegate) != (person, delegate):
            return Rejection("not_delegated", "whoever they answer for has not named them as a delegate")
        # A renewal recounts old answers, and the delegation may have been extended since then. That must not invalidate them.
        if outdated := why_not_valid_now(statement, now=max(self.now, statement.issued_at)):
            return Rejection("delegation_not_current", f"they are no delegate now: {outdated}")
        absent = self.verify_signer(person, signed)
        return absent if isinstance(absent, Rejection) else None

    def _verify_decision(self, job: str, ladder: Ladder, signed: SignedStatement) -> DecisionStatement | Rejection:
        statement = read_statement(DecisionStatement, signed)
        if isinstance(statement, Rejection):
            return statement
        return _why_decision_mismatch(statement, job, ladder) or why_not_valid_now(statement, now=self.now) or statement

    def _why_not_entitled_to(self, statement: DecisionStatement, person: Person, tier: int) -> Rejection | None:
        if statement.decision != "break_glass":
            return None if tier else Rejection("not_entitled", f"{person.name} is in no group that answers requests")
        glass = self.tiers.roles.break_glass
        if person.groups & set(glass):
            return None
        return Rejection("not_entitled", f"{person.name} is in none of the groups that may break glass ({', '.join(glass)})")

    def _verify_absent_person(self, statement: DecisionStatement, ladder: Ladder) -> Person | Rejection | None:
        """Return the absent person whom a delegate answers for, None if people answer for themselves, or why they may not."""
        absent = statement.on_behalf_of
        if absent is None:
            return None
        if statement.decision == "break_glass":
            return Rejection("break_glass_by_delegate", "nobody breaks glass on another's behalf")
        if rejection := ladder.why_own_job(absent):
            return rejection
        if rejection := self.why_not_delegate(absent, statement.person, self.people.delegation(absent, statement.person)):
            return rejection
        known = self.people.person(absent)
        if known is None or self.tiers.tier_of(known.groups) < ladder.current:
            return Rejection("tier_too_low", f"the request is at tier {ladder.current}, which whoever they answer for does not answer for")
        return known


@dataclass(frozen=True, slots=True)
class RequestTally:
    """The state of one request while answers are counted one by one."""

    ladder: Ladder
    verdict: Verdict = "pending"
    last: ApprovalAnswer | Withdrawal | None = None
    """The answer or withdrawal that was counted last."""

    def with_signed(self, verifier: ApprovalVerifier, job: str, signed: SignedStatement) -> Self | Rejection:
        """Return the state after one more signed answer or withdrawal, or why it changes nothing."""
        if signed.statement.get("decision") == "withdraw":
            return self._with_withdrawal(verifier, job, signed)
        if self.verdict != "pending":
            return NOT_WAITING
        moved = verifier.count_answer(job, self.ladder, signed)
        if isinstance(moved, Rejection):
            return moved
        return replace(self, ladder=moved, verdict=moved.verdict(verifier.tiers), last=moved.answers[-1])

    def _with_withdrawal(self, verifier: ApprovalVerifier, job: str, signed: SignedStatement) -> Self | Rejection:
        if self.verdict not in {"pending", "approved"}:
            return NOT_WAITING
        seen = verifier.verify_withdrawal(job, self.ladder, signed)
        if isinstance(seen, Rejection):
            return seen
        if self.verdict == "pending" and not any(answer.person == seen.person for answer in self.ladder.answers):
            return Rejection("nothing_to_withdraw", "this person has approved nothing here that could be taken back")
        verdict: Verdict = "pending" if self.verdict == "pending" else "withdrawn"
        return replace(self, ladder=self.ladder.without_answer_of(seen.person), verdict=verdict, last=seen)


def read_statement(model: type[S], signed: SignedStatement) -> S | Rejection:
    """Parse a signed statement. It must be exactly the canonical form of its type, without additional or differently written values."""
    kind = model.model_fields["type"].default
    try:
        statement = model.model_validate(signed.statement)
        exact = to_canonical_json(to_signable(statement)) == to_canonical_json(signed.statement)
    except UNREADABLE_ERRORS:
        return Rejection("statement_unreadable", f"this is not a statement of type {kind}")
    return statement if exact else Rejection("statement_not_canonical", f"this is not a statement of type {kind} in its one exact form")


def needs_reason(decision: str, tier: int) -> bool:
    """Whether an answer at this tier needs a reason: all do, except approvals at tier 1."""
    return decision != "approve" or tier > 1


def _why_decision_mismatch(statement: DecisionStatement, job: str, ladder: Ladder) -> Rejection | None:
    if statement.job != job:
        return Rejection("other_job", "the decision is for another job")
    if statement.request != ladder.request:
        return Rejection("other_request", "the decision is for another request")
    if statement.digest != ladder.digest:
        return Rejection("other_digest", "the decision is for something else than what would run and be issued now")
    return _why_terms_invalid(statement, ladder)


def _why_terms_invalid(statement: DecisionStatement, ladder: Ladder) -> Rejection | None:
    if not _is_action_within(statement, ladder):
        return Rejection("other_action", "the decision is for another action")
    if not 0 < statement.ttl <= ladder.ttl:
        return Rejection("ttl_out_of_range", f"the decision's ttl is not between 1 and {ladder.ttl} seconds")
    if needs_reason(statement.decision, ladder.current) and not statement.reason.strip():
        return Rejection("reason_missing", "the decision gives no reason")
    if rejection := why_bounds_invalid(statement, ladder.tools):
        return rejection
    # Anyone may withdraw an approval, even for a job of their own.
    return None if statement.decision == "withdraw" else ladder.why_own_job(statement.person)


def why_bounds_invalid(statement: DecisionStatement, tools: BoundedTools | None) -> Rejection | None:
    """Return why a decision cannot bind tools as it does, or None if it can or binds none. `tools`: as they were requested."""
    if statement.tools is None:
        return None
    if statement.decision not in {"approve", "break_glass"}:
        return Rejection("bounds_not_applicable", "only what is allowed is bound: a decision of this kind names no tools")
    if tools is None:
        message = "it is not for access through tools, so there is nothing to bind: one call is approved with exactly its arguments"
        return Rejection("bounds_not_applicable", message)
    if unknown := sorted(statement.tools.keys() - tools.keys()):
        requested = f"there {'are' if len(tools) > 1 else 'is'} {', '.join(sorted(tools))}"
        return Rejection("bounds_of_other_tools", f"it binds {', '.join(unknown)}, which was not requested; {requested}")
    if nothing := sorted(statement.tools.keys() - intersect_tools(tools, statement.tools).keys()):
        return Rejection("bounds_leave_nothing", f"no call of {', '.join(nothing)} would be left within what was requested")
    return None


def _is_action_within(statement: DecisionStatement, ladder: Ladder) -> bool:
    if ladder.action is None or statement.action == ladder.action:
        return True
    return statement.decision in {"approve", "break_glass"} and statement.action.rank < ladder.action.rank
