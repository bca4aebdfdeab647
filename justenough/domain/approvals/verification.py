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

from justenough.domain.approvals.ladder import Answer, Ladder
from justenough.domain.approvals.statements import (
    DecisionStatement,
    DelegationStatement,
    OrderStatement,
    ReviewStatement,
    Signed,
    signable,
    why_not_current,
    why_not_signed,
)
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.core.base_model import Message
from justenough.domain.core.canonical_json import canonical
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Tools, both

Verdict = Literal["pending", "approved", "denied", "withdrawn"]
S = TypeVar("S", OrderStatement, DecisionStatement, DelegationStatement, ReviewStatement)

# What reading a stranger's JSON may raise: none of it is more than "not readable".
UNREADABLE = (ValidationError, ValueError, TypeError, OverflowError, RecursionError)
NOT_WAITING = "it names no request of this job that waits for an answer"


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not hold; one sentence says why."""

    why: str


class Withdrawal(Message):
    """One verified wish to take an approval back."""

    person: str
    name: str
    reason: str
    signed: Signed


class People(Protocol):
    """Who people are now, and what they have signed about each other. May raise where nobody can tell."""

    def person(self, entity: str) -> Person | None:
        """Return the person of this entity id; None for what is no person, or a disabled one."""

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        """Return their raw ed25519 public keys by version."""

    def delegation(self, person: str, delegate: str) -> Signed | None:
        """Return what the person last signed to name this delegate, unless they ended it."""


class Asked(Protocol):
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
    def tools(self) -> Tools | None: ...
    @property
    def current(self) -> int: ...
    def why_theirs(self, person: str) -> str | None: ...


def _nothing_more(request: str, answer: Answer) -> str | None:
    del request, answer
    return None


@dataclass(frozen=True, slots=True)
class Table:
    """What answers are examined against: the people, the tiers, the moment."""

    people: People
    tiers: Tiers
    now: datetime
    why_not_elsewhere: Callable[[str, Answer], str | None] = _nothing_more
    """Why an answer to a request does not count for want of what its person was to do elsewhere; asked only when answers are counted."""

    def answer(self, job: str, asked: Asked, signed: Signed) -> Answer | Refused:
        """Return the answer that a signed decision is now, or why it does not count."""
        statement = self._decision(job, asked, signed)
        if isinstance(statement, Refused):
            return statement
        if statement.decision == "withdraw":
            return Refused("it takes an approval back and is no answer")
        person = self.signer(statement.person, signed)
        if isinstance(person, Refused):
            return person
        tier = self.tiers.tier_of(person.groups)
        if why := self._why_not_entitled(statement, person, tier):
            return Refused(why)
        absent = self._absent(statement, asked)
        if isinstance(absent, Refused):
            return absent
        return Answer(
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

    def withdrawal(self, job: str, asked: Asked, signed: Signed) -> Withdrawal | Refused:
        """Return what takes an approval back. Giving access up needs less than giving it: nobody's own job is barred."""
        statement = self._decision(job, asked, signed)
        if isinstance(statement, Refused):
            return statement
        if statement.decision != "withdraw":
            return Refused("it does not take an approval back")
        person = self.signer(statement.person, signed)
        if isinstance(person, Refused):
            return person
        if not self.may_take_back(person):
            return Refused(f"{person.name} is in no group that approves or launches")
        return Withdrawal(person=person.id, name=person.name, reason=statement.reason, signed=signed)

    def may_take_back(self, person: Person) -> bool:
        """Whether somebody may take approvals back: whoever approves at some tier, and whoever launches."""
        return self.tiers.tier_of(person.groups) > 0 or bool(person.groups & set(self.tiers.roles.launch))

    def counted(self, job: str, ladder: Ladder, signed: Signed) -> Ladder | Refused:
        """Return the ladder that a signed answer moves, that answer being its last, or why it moves none."""
        answer = self.answer(job, ladder, signed)
        if isinstance(answer, Refused):
            return answer
        moved = ladder.answered(answer)
        if isinstance(moved, str):
            return Refused(moved)
        why = self.why_not_elsewhere(ladder.request, answer)
        return Refused(why) if why else moved

    def recounted(self, job: str, ladder: Ladder, given: Iterable[Signed]) -> tuple[Ladder, tuple[tuple[int, Refused], ...]]:
        """Return the ladder with those of some answers that count now, and the number (from 1) of each that does not, with why."""
        refused: list[tuple[int, Refused]] = []
        for number, signed in enumerate(given, start=1):
            moved = self.counted(job, ladder, signed)
            if isinstance(moved, Refused):
                refused.append((number, moved))
            else:
                ladder = moved
        return ladder, tuple(refused)

    def signer(self, person: str, signed: Signed) -> Person | Refused:
        """Return the person as they are known now, their signature checked with their own key."""
        known = self.people.person(person)
        if known is None:
            return Refused("whoever is named is no person here: no entity with a login on a people mount, or disabled")
        why = why_not_signed(signed, self.people.public_keys(known.id))
        return Refused(why) if why else known

    def why_no_delegate(self, person: str, delegate: str, signed: Signed | None) -> str | None:
        """Return why what a person signed does not make somebody their delegate now; None where it does."""
        statement = read(DelegationStatement, signed) if signed else Refused("")
        if signed is None or isinstance(statement, Refused) or (statement.person, statement.delegate) != (person, delegate):
            return "whoever they answer for has not named them as a delegate"
        # What a renewal counts again was counted in the past, and a delegation may have been prolonged since: that takes nothing away.
        if why := why_not_current(statement, now=max(self.now, statement.issued_at)):
            return f"they are no delegate now: {why}"
        absent = self.signer(person, signed)
        return absent.why if isinstance(absent, Refused) else None

    def _decision(self, job: str, asked: Asked, signed: Signed) -> DecisionStatement | Refused:
        statement = read(DecisionStatement, signed)
        if isinstance(statement, Refused):
            return statement
        why = _why_not_this(statement, job, asked) or why_not_current(statement, now=self.now)
        return Refused(why) if why else statement

    def _why_not_entitled(self, statement: DecisionStatement, person: Person, tier: int) -> str | None:
        if statement.decision == "break_glass":
            glass = self.tiers.roles.break_glass
            return (
                None if person.groups & set(glass) else f"{person.name} is in none of the groups that may break glass ({', '.join(glass)})"
            )
        return None if tier else f"{person.name} is in no group that answers requests"

    def _absent(self, statement: DecisionStatement, asked: Asked) -> Person | Refused | None:
        """Return whom somebody answers for, or why they do not; None where they answer for themselves."""
        absent = statement.on_behalf_of
        if absent is None:
            return None
        if statement.decision == "break_glass":
            return Refused("nobody breaks glass on another's behalf")
        if theirs := asked.why_theirs(absent):
            return Refused(theirs)
        if why := self.why_no_delegate(absent, statement.person, self.people.delegation(absent, statement.person)):
            return Refused(why)
        known = self.people.person(absent)
        if known is None or self.tiers.tier_of(known.groups) < asked.current:
            return Refused(f"the request is at tier {asked.current}, which whoever they answer for does not answer for")
        return known


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one request stands while what was sent is examined, one after the other."""

    ladder: Ladder
    verdict: Verdict = "pending"
    last: Answer | Withdrawal | None = None
    """What brought it here."""

    def sent(self, table: Table, job: str, signed: Signed) -> Self | Refused:
        """Return where the request stands after something signed came, or why that changes nothing."""
        if signed.statement.get("decision") == "withdraw":
            return self._taken_back(table, job, signed)
        if self.verdict != "pending":
            return Refused(NOT_WAITING)
        moved = table.counted(job, self.ladder, signed)
        if isinstance(moved, Refused):
            return moved
        return replace(self, ladder=moved, verdict=moved.verdict(table.tiers), last=moved.answers[-1])

    def _taken_back(self, table: Table, job: str, signed: Signed) -> Self | Refused:
        if self.verdict not in {"pending", "approved"}:
            return Refused(NOT_WAITING)
        seen = table.withdrawal(job, self.ladder, signed)
        if isinstance(seen, Refused):
            return seen
        if self.verdict == "pending" and not any(answer.person == seen.person for answer in self.ladder.answers):
            return Refused("this person has approved nothing here that could be taken back")
        verdict: Verdict = "pending" if self.verdict == "pending" else "withdrawn"
        return replace(self, ladder=self.ladder.without(seen.person), verdict=verdict, last=seen)


def read(model: type[S], signed: Signed) -> S | Refused:
    """Return the statement as typed; what is signed must be its one canonical form, nothing more and nothing spelt otherwise."""
    kind = model.model_fields["type"].default
    try:
        statement = model.model_validate(signed.statement)
        exact = canonical(signable(statement)) == canonical(signed.statement)
    except UNREADABLE:
        return Refused(f"this is not a statement of type {kind}")
    return statement if exact else Refused(f"this is not a statement of type {kind} in its one exact form")


def needs_reason(decision: str, tier: int) -> bool:
    """Whether an answer at this tier must say why: all but an approval at the first."""
    return decision != "approve" or tier > 1


def _why_not_this(statement: DecisionStatement, job: str, asked: Asked) -> str | None:
    checks: Mapping[str, Callable[[], bool]] = {
        "the decision is for another job": lambda: statement.job == job,
        "the decision is for another request": lambda: statement.request == asked.request,
        "the decision is for something else than what would run and be issued now": lambda: statement.digest == asked.digest,
        "the decision is for another action": lambda: _is_within(statement, asked),
        f"the decision's ttl is not between 1 and {asked.ttl} seconds": lambda: 0 < statement.ttl <= asked.ttl,
        "the decision gives no reason": lambda: bool(statement.reason.strip()) or not needs_reason(statement.decision, asked.current),
    }
    bound = why_not_bound(statement, asked.tools)
    # Giving up what was approved for one's own job is nobody's to forbid.
    return first_failed(checks) or bound or (None if statement.decision == "withdraw" else asked.why_theirs(statement.person))


def why_not_bound(statement: DecisionStatement, tools: Tools | None) -> str | None:
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
    if nothing := sorted(statement.tools.keys() - both(tools, statement.tools).keys()):
        return f"no call of {', '.join(nothing)} would be left within what was requested"
    return None


def _is_within(statement: DecisionStatement, asked: Asked) -> bool:
    if asked.action is None or statement.action == asked.action:
        return True
    return statement.decision in {"approve", "break_glass"} and statement.action.rank < asked.action.rank


def first_failed(checks: Mapping[str, Callable[[], bool]]) -> str | None:
    """Return the first of some sentences whose check does not hold."""
    return next((why for why, holds in checks.items() if not holds()), None)
