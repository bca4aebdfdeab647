"""Verifies what people signed: orders and decisions. Reads people, groups and public keys from Vault; issues and records nothing.

Input of any shape gets a verdict that says why; only a Vault that does not answer raises (RetryLater).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from activities.deps import Deps
from justenough.access import Action
from justenough.approval import Answer, Person
from justenough.errors import InvalidInput
from justenough.ids import JOB_ID
from justenough.messages import JobInput
from justenough.spec import JobSpec, checked_spec
from justenough.statements import DecisionStatement, OrderStatement, Signed, canonical, digest_of, signable, why_not_current, why_not_signed

S = TypeVar("S", OrderStatement, DecisionStatement)

# What reading a stranger's JSON may raise: none of it is more than "not readable".
UNREADABLE = (ValidationError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not hold; one sentence says why."""

    why: str


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """An order that holds now: who signed it, the spec with its params filled in, and what was signed."""

    person: Person
    spec: JobSpec
    statement: OrderStatement


class Asked(Protocol):
    """What a decision must be about; a `Ladder` is one."""

    @property
    def request(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def requester(self) -> str: ...
    @property
    def ttl(self) -> int: ...
    @property
    def action(self) -> Action | None: ...


def verify_order(deps: Deps, order: JobInput, *, now: datetime) -> VerifiedOrder | Refused:
    """Return the order as verified at `now`, or why it does not hold. Raises RetryLater where Vault does not answer."""
    statement = _read(OrderStatement, order.order)
    if isinstance(statement, Refused):
        return statement
    spec = _spec(order)
    if isinstance(spec, Refused):
        return spec
    why = _why_not_this_order(statement, order) or why_not_current(statement, now=now)
    if why:
        return Refused(why)
    person = _signer(deps, statement.person, order.order)
    if isinstance(person, Refused):
        return person
    allowed = deps.config.current().tiers.roles.launch
    if not person.groups & set(allowed):
        return Refused(f"{person.name} is in none of the groups that may launch ({', '.join(allowed) or 'none is configured'})")
    return VerifiedOrder(person=person, spec=spec, statement=statement)


def verify_decision(deps: Deps, job: str, asked: Asked, signed: Signed, *, now: datetime) -> Answer | Refused:
    """Return the answer that a signed decision is at `now`, or why it does not count. Raises RetryLater where Vault does not answer."""
    statement = _read(DecisionStatement, signed)
    if isinstance(statement, Refused):
        return statement
    why = _why_not_this_decision(statement, job, asked) or why_not_current(statement, now=now)
    if why:
        return Refused(why)
    person = _signer(deps, statement.person, signed)
    if isinstance(person, Refused):
        return person
    tier = deps.config.current().tiers.tier_of(person.groups)
    if tier < 1:
        return Refused(f"{person.name} is in no group that answers requests")
    return Answer(
        person=person.id,
        name=person.name,
        tier=tier,
        decision=statement.decision,
        ttl=statement.ttl,
        reason=statement.reason,
        at=statement.issued_at,
        signed=signed,
    )


def _read(model: type[S], signed: Signed) -> S | Refused:
    """Return the statement as typed; what is signed must be its one canonical form, nothing more and nothing spelt otherwise."""
    kind = model.model_fields["type"].default
    try:
        statement = model.model_validate(signed.statement)
        exact = canonical(signable(statement)) == canonical(signed.statement)
    except UNREADABLE:
        return Refused(f"this is not a statement of type {kind}")
    return statement if exact else Refused(f"this is not a statement of type {kind} in its one exact form")


def _spec(order: JobInput) -> JobSpec | Refused:
    try:
        return checked_spec(order.spec, order.params)
    except InvalidInput as error:
        return Refused(f"the spec does not hold: {'; '.join(map(str, error.problems))}")
    except UNREADABLE:
        return Refused("the spec is not readable")


def _why_not_this_order(statement: OrderStatement, order: JobInput) -> str | None:
    checks: Mapping[str, Callable[[], bool]] = {
        "the job's id is not one": lambda: JOB_ID.fullmatch(order.job) is not None,
        "the order is for another job": lambda: statement.job == order.job,
        "the order is for another spec": lambda: statement.spec_digest == _digest(order.spec),
        "the order is for another bundle": lambda: statement.bundle == order.bundle,
        "the order is for other params": lambda: dict(statement.params) == dict(order.params),
    }
    return _first_failed(checks)


def _why_not_this_decision(statement: DecisionStatement, job: str, asked: Asked) -> str | None:
    checks: Mapping[str, Callable[[], bool]] = {
        "the decision is for another job": lambda: statement.job == job,
        "the decision is for another request": lambda: statement.request == asked.request,
        "the decision is for something else than what would run and be issued now": lambda: statement.digest == asked.digest,
        "the decision is for another action": lambda: asked.action is None or statement.action == asked.action,
        f"the decision's ttl is not between 1 and {asked.ttl} seconds": lambda: 0 < statement.ttl <= asked.ttl,
        "the decision gives no reason": lambda: bool(statement.reason.strip()),
        "no one answers for a job that they launched": lambda: statement.person != asked.requester,
    }
    return _first_failed(checks)


def _first_failed(checks: Mapping[str, Callable[[], bool]]) -> str | None:
    return next((why for why, holds in checks.items() if not holds()), None)


def _digest(value: Any) -> str | None:
    try:
        return digest_of(value)
    except UNREADABLE:
        return None


def _signer(deps: Deps, person: str, signed: Signed) -> Person | Refused:
    """Return the person as Vault knows them now, their signature checked with their own key."""
    known = deps.vault.person(person, deps.settings.people_mounts)
    if known is None:
        return Refused("whoever is named is no person here: no entity with a login on a people mount, or disabled")
    why = why_not_signed(signed, deps.vault.public_keys(known.id))
    return Refused(why) if why else known
