"""Verifies signed answers: statement, signature, groups, delegation. No I/O, no clock.

Each answer is verified three times: by the console before it signals, by the worker when it counts, and by the session right before it
issues; the session trusts neither. Malformed input is rejected and raises nothing.
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
    SignedStatement,
    Statement,
    to_signable,
    why_not_valid_now,
    why_signature_invalid,
)
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.core.base_model import Message
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.tool_bounds import NOT_BOUNDABLE, BoundedTools, intersect_tools

Verdict = Literal["pending", "approved", "denied", "withdrawn"]
S = TypeVar("S", bound=Statement)

# The errors that parsing untrusted JSON may raise.
UNREADABLE_ERRORS = (ValidationError, ValueError, TypeError, OverflowError, RecursionError)
NOT_WAITING = Rejection("request_not_waiting", "this job has no such request that waits for an answer")


class Withdrawal(Message):
    """A verified withdrawal of an approval."""

    person: str
    name: str
    reason: str
    signed: SignedStatement | None
    """None if Vault did not answer, so that nothing could be signed."""


class PeopleDirectory(Protocol):
    """Looks up people, their keys and their delegations. May raise RetryLater."""

    def person(self, entity: str) -> Person | None:
        """Return the person with this entity id, or None if there is none or they are disabled."""

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        """Return their raw ed25519 public keys by version."""

    def delegation(self, person: str, delegate: str, *, at: datetime) -> SignedStatement | None:
        """Return the person's latest delegation to this delegate, or None if there is none or the person had ended it by `at`."""


@dataclass(frozen=True, slots=True)
class ApprovalVerifier:
    """Verifies answers against the people, the tiers and a point in time."""

    people: PeopleDirectory
    tiers: Tiers
    now: datetime
    further_check: Callable[[str, ApprovalAnswer], Rejection | None] | None = None
    """An extra check when answers are counted, such as of an authorization in Vault; it gets the request's id and the answer."""

    def verify_answer(
        self, job: str, ladder: Ladder, signed: SignedStatement, *, given_from: int | None = None
    ) -> ApprovalAnswer | Rejection:
        """Return the answer that a signed decision gives, or why it does not count.

        `given_from`: the lowest tier at which it may have been given; None if it is given at the current tier.
        """
        tier = ladder.current if given_from is None else given_from
        statement = self._verify_decision(job, ladder, signed, tier=tier)
        if isinstance(statement, Rejection):
            return statement
        if statement.decision == "withdraw":
            return Rejection("not_an_answer", "the decision is a withdrawal, which does not answer the request")
        person = self.verify_signer(statement.person, signed)
        if isinstance(person, Rejection):
            return person
        is_break_glass = statement.decision == "break_glass"
        groups = self.tiers.roles.break_glass if is_break_glass else self.tiers.approver_groups
        if not person.groups & set(groups):
            needed = (
                f"none of the groups that may use break-glass ({', '.join(groups)})"
                if is_break_glass
                else "no group that approves requests"
            )
            return Rejection("not_entitled", f"{person.name} is in {needed}")
        absent = self._verify_absent_person(statement, ladder, tier=tier)
        if isinstance(absent, Rejection):
            return absent
        return ApprovalAnswer(
            person=person.id,
            name=person.name,
            tier=self.tiers.tier_of(person.groups),
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
        statement = self._verify_decision(job, ladder, signed, tier=ladder.current)
        if isinstance(statement, Rejection):
            return statement
        if statement.decision != "withdraw":
            return Rejection("not_a_withdrawal", "the decision does not withdraw an approval")
        person = self.verify_signer(statement.person, signed)
        if isinstance(person, Rejection):
            return person
        if not self.can_withdraw(person, requester=ladder.requester):
            message = f"{person.name} did not launch the job, and is in no group that approves or may use break-glass"
            return Rejection("not_entitled", message)
        return Withdrawal(person=person.id, name=person.name, reason=statement.reason, signed=signed)

    def can_withdraw(self, person: Person, *, requester: str) -> bool:
        """Whether a person may withdraw an approval: approvers, people who may use break-glass, and the job's launcher may."""
        own = self.tiers.roles.launch if person.id == requester else ()
        return bool(person.groups & {*self.tiers.approver_groups, *self.tiers.roles.break_glass, *own})

    def count_answer(self, job: str, ladder: Ladder, signed: SignedStatement, *, given_from: int | None = None) -> Ladder | Rejection:
        """Return the ladder with a signed answer added as its last, or why that answer does not count. `given_from`: as in `verify_answer`."""
        answer = self.verify_answer(job, ladder, signed, given_from=given_from)
        if isinstance(answer, Rejection):
            return answer
        updated = ladder.with_answer(answer)
        if isinstance(updated, Rejection):
            return updated
        rejection = self.further_check(ladder.request, answer) if self.further_check else None
        return rejection or updated

    def recount_answers(
        self, job: str, ladder: Ladder, answers: Iterable[SignedStatement]
    ) -> tuple[Ladder, tuple[tuple[int, Rejection], ...]]:
        """Return the ladder with the answers that count now, and the number (from 1) and the rejection of each answer that does not."""
        rejections: list[tuple[int, Rejection]] = []
        for number, signed in enumerate(answers, start=1):
            # Before the request escalated, an approval by somebody of a higher tier may have needed no reason, or was given for an absent
            # person of the lower tier. It stayed when the request escalated.
            updated = self.count_answer(job, ladder, signed, given_from=ladder.needed)
            if isinstance(updated, Rejection):
                rejections.append((number, updated))
            else:
                ladder = updated
        return ladder, tuple(rejections)

    def lapsed_answers(self, job: str, ladder: Ladder) -> tuple[tuple[ApprovalAnswer, Rejection], ...]:
        """Return the ladder's answers that do not count any more, each with the reason: their people may have lost their right since."""
        bare = ladder.model_copy(update={"answers": ()})
        _, rejections = self.recount_answers(job, bare, (answer.signed for answer in ladder.answers))
        return tuple((ladder.answers[number - 1], rejection) for number, rejection in rejections)

    def verify_signer(self, person: str, signed: SignedStatement) -> Person | Rejection:
        """Check a statement's signature with the keys of `person` (an entity id); return the person, or why it is invalid."""
        signer = self.people.person(person)
        if signer is None:
            return Rejection(
                "person_unknown", "the signer is not an active person: the entity has no login on a people mount, or is disabled"
            )
        return why_signature_invalid(signed, self.people.public_keys(signer.id)) or signer

    def why_not_delegate(self, person: str, delegate: str, signed: SignedStatement | None) -> Rejection | None:
        """Return why a person's signed delegation does not make `delegate` their delegate now, or None if it does."""
        statement = read_statement(DelegationStatement, signed) if signed else None
        if signed is None or not isinstance(statement, DelegationStatement) or (statement.person, statement.delegate) != (person, delegate):
            return Rejection("not_delegated", "the absent person has not named the signer as a delegate")
        # A renewal recounts old answers, and the delegation may have been extended since then. That must not invalidate them.
        if outdated := why_not_valid_now(statement, now=max(self.now, statement.issued_at)):
            return Rejection("delegation_not_current", f"the delegation is not valid now: {outdated}")
        absent = self.verify_signer(person, signed)
        return absent if isinstance(absent, Rejection) else None

    def _verify_decision(self, job: str, ladder: Ladder, signed: SignedStatement, *, tier: int) -> DecisionStatement | Rejection:
        """Return the statement of a signed decision, or why it does not count. `tier`: the lowest one at which it may have been given."""
        statement = read_statement(DecisionStatement, signed)
        if isinstance(statement, Rejection):
            return statement
        is_narrower = statement.decision in {"approve", "break_glass"} and ladder.action and statement.action.rank < ladder.action.rank
        rules = (
            (statement.job == job, "other_job", "the decision is for another job"),
            (statement.request == ladder.request, "other_request", "the decision is for another request"),
            (
                statement.digest == ladder.digest,
                "other_digest",
                "the decision is for something other than what would run and be issued now",
            ),
            (ladder.action in {None, statement.action} or is_narrower, "other_action", "the decision is for another action"),
            (
                0 < statement.ttl <= ladder.ttl,
                "ttl_out_of_range",
                f"the decision's ttl is {statement.ttl} s; it must be from 1 to {ladder.ttl} s",
            ),
            (
                statement.reason.strip() or not needs_reason(statement.decision, tier),
                "reason_missing",
                "the decision has no reason, but one is required",
            ),
        )
        return (
            next((Rejection(code, message) for holds, code, message in rules if not holds), None)
            or why_bounds_invalid(statement, ladder.tools)
            # Anyone may withdraw an approval, even for a job of their own.
            or (None if statement.decision == "withdraw" else ladder.why_own_job(statement.person))
            or why_not_valid_now(statement, now=self.now)
            or statement
        )

    def _verify_absent_person(self, statement: DecisionStatement, ladder: Ladder, *, tier: int) -> Person | Rejection | None:
        """Return the absent person on whose behalf a delegate decides, None if people decide for themselves, or why they may not.

        `tier`: the lowest one at which the delegate may have decided.
        """
        absent = statement.on_behalf_of
        if absent is None:
            return None
        if statement.decision == "break_glass":
            return Rejection("break_glass_by_delegate", "break-glass cannot be used on behalf of another person")
        if rejection := ladder.why_own_job(absent):
            return rejection
        if rejection := self.why_not_delegate(absent, statement.person, self.people.delegation(absent, statement.person, at=self.now)):
            return rejection
        absent_person = self.people.person(absent)
        if absent_person is None or self.tiers.tier_of(absent_person.groups) < tier:
            return Rejection("tier_too_low", f"the request is at tier {tier}, at which the absent person may not decide")
        return absent_person


@dataclass(frozen=True, slots=True)
class RequestTally:
    """The state of one request while answers are counted one by one."""

    ladder: Ladder
    verdict: Verdict = "pending"
    last: ApprovalAnswer | Withdrawal | None = None
    """The answer or withdrawal that was counted most recently."""
    lapsed: tuple[tuple[ApprovalAnswer, Rejection], ...] = ()
    """The earlier answers that did not count any more then, each with the reason."""

    def with_signed(self, verifier: ApprovalVerifier, job: str, signed: SignedStatement) -> Self | Rejection:
        """Return the state after one more signed answer or withdrawal, or why it changes nothing."""
        if signed.statement.get("decision") == "withdraw":
            return self._with_withdrawal(verifier, job, signed)
        if self.verdict != "pending":
            return NOT_WAITING
        updated = verifier.count_answer(job, self.ladder, signed)
        if isinstance(updated, Rejection):
            return updated
        counted = replace(self, ladder=updated, verdict=updated.verdict(verifier.tiers), last=updated.answers[-1], lapsed=())
        if counted.verdict != "approved" or not self.ladder.answers:
            return counted
        lapsed = verifier.lapsed_answers(job, updated)
        left = updated.without(answer for answer, _ in lapsed)
        # If too few are left, others can still approve, and so count the lapsed ones if their people get their right back.
        is_approved = left.verdict(verifier.tiers) == "approved"
        return replace(counted, ladder=left if is_approved else updated, verdict="approved" if is_approved else "pending", lapsed=lapsed)

    def with_recorded(self, answer: ApprovalAnswer, verdict: Verdict) -> Self | Rejection:
        """Return the state after an answer that was recorded with this verdict before, or why it does not count any more."""
        updated = self.ladder.with_answer(answer)
        if isinstance(updated, Rejection):
            return updated
        return replace(self, ladder=updated, verdict=verdict, last=answer)

    def _with_withdrawal(self, verifier: ApprovalVerifier, job: str, signed: SignedStatement) -> Self | Rejection:
        if self.verdict not in {"pending", "approved"}:
            return NOT_WAITING
        withdrawal = verifier.verify_withdrawal(job, self.ladder, signed)
        if isinstance(withdrawal, Rejection):
            return withdrawal
        if self.verdict == "pending" and not any(answer.person == withdrawal.person for answer in self.ladder.answers):
            return Rejection("nothing_to_withdraw", "this person has no approval here to withdraw")
        verdict: Verdict = "pending" if self.verdict == "pending" else "withdrawn"
        return replace(self, ladder=self.ladder.without_answer_of(withdrawal.person), verdict=verdict, last=withdrawal)


def read_statement(model: type[S], signed: SignedStatement) -> S | Rejection:
    """Parse a signed statement. Rejects a statement that is not exactly in canonical form (with extra or differently written values)."""
    kind = model.model_fields["type"].default
    try:
        statement = model.model_validate(signed.statement)
        exact = to_canonical_json(to_signable(statement)) == to_canonical_json(signed.statement)
    except UNREADABLE_ERRORS:
        return Rejection("statement_unreadable", f"this is not a statement of type {kind}")
    message = f"this is not a statement of type {kind} in canonical form (RFC 8785, without extra fields)"
    return statement if exact else Rejection("statement_not_canonical", message)


def needs_reason(decision: str, tier: int) -> bool:
    """Whether a decision at this tier needs a reason: all do, except approvals at tier 1."""
    return decision != "approve" or tier > 1


def why_bounds_invalid(statement: DecisionStatement, tools: BoundedTools | None) -> Rejection | None:
    """Return why a decision's tool bounds are invalid, or None if they are valid or absent. `tools`: the requested ones."""
    if statement.tools is None:
        return None
    if statement.decision not in {"approve", "break_glass"}:
        return Rejection("bounds_not_applicable", f"a decision to {statement.decision} allows nothing, so it cannot set tool bounds")
    if tools is None:
        return Rejection("bounds_not_applicable", NOT_BOUNDABLE)
    if unknown := sorted(statement.tools.keys() - tools.keys()):
        message = f"it sets bounds on {', '.join(unknown)}, which was not requested; requested: {', '.join(sorted(tools))}"
        return Rejection("bounds_of_other_tools", message)
    if empty := sorted(statement.tools.keys() - intersect_tools(tools, statement.tools).keys()):
        return Rejection("bounds_leave_nothing", f"no call of {', '.join(empty)} satisfies both its bounds and the requested ones")
    return None
