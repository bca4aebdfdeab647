"""Verifies what people signed, with people, groups and keys as Vault has them now. Issues and records nothing. What counts: justenough/domain/approvals/verification.py.

Input of any shape gets a verdict that says why; only a server that does not answer raises (RetryLater).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from justenough.adapters.configuration.configured_jobs import ScheduledJob, TriggeredJob
from justenough.domain.approvals.statements import OrderStatement, SignedStatement, why_not_valid_now, why_signature_invalid
from justenough.domain.approvals.tiers import Person
from justenough.domain.approvals.verification import UNREADABLE_ERRORS, ApprovalVerifier, Rejection, first_failed, read_statement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.ids import JOB_ID
from justenough.domain.integrations import schedules, triggers
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import inherited_limit_problems
from justenough.services.parent_chain import why_no_chain, why_no_parent


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """An order that holds now: who signed it, the spec with its params filled in, and what was signed."""

    person: Person
    spec: JobSpec
    statement: OrderStatement
    at: datetime
    """When its time held: what goes on longer than its statement lives needs only have begun within it."""


@dataclass(frozen=True, slots=True)
class VaultPeople:
    """People as Vault knows them, and what the store keeps of their delegations, whose signatures are checked wherever one is used."""

    deps: Deps

    def person(self, entity: str) -> Person | None:
        return self.deps.vault.person(entity, self.deps.settings.people_mounts)

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return self.deps.vault.public_keys(entity)

    def delegation(self, person: str, delegate: str) -> SignedStatement | None:
        return self.deps.store.delegations.signed(person, delegate)


def build_approval_verifier(deps: Deps, *, now: datetime) -> ApprovalVerifier:
    """Return what answers are examined against now."""
    return ApprovalVerifier(VaultPeople(deps), deps.config.current().tiers, now)


def verify_order(deps: Deps, order: JobInput, *, now: datetime) -> VerifiedOrder | Rejection:
    """Return the order as verified at `now`, or why it does not hold. Raises RetryLater where Vault does not answer."""
    statement = read_statement(OrderStatement, order.order)
    if isinstance(statement, Rejection):
        return statement
    spec = _read_spec(order)
    if isinstance(spec, Rejection):
        return spec
    why = _why_statement_mismatch(statement, order) or why_not_valid_now(statement, now=now)
    if why:
        return Rejection(why)
    person = _verify_orderer(deps, statement, order, now=now)
    if isinstance(person, Rejection):
        return person
    if more := inherited_limit_problems(deps, spec, statement):
        return Rejection(f"it asks for more than the job that launches it has: {'; '.join(map(str, more))}")
    return VerifiedOrder(person=person, spec=spec, statement=statement, at=now)


def _verify_orderer(deps: Deps, statement: OrderStatement, order: JobInput, *, now: datetime) -> Person | Rejection:
    """Return who ordered it, a person or the console for one of its triggers or schedules, or why they may not."""
    if statement.origin is not None:
        return _verify_console_order(deps, statement, order)
    person = build_approval_verifier(deps, now=now).verify_signer(statement.person, order.order)
    if isinstance(person, Rejection):
        return person
    why = (
        "only the console says who asked it for an order"
        if statement.asked_by is not None
        else _why_person_may_not_launch(deps, person, statement.parent)
    )
    return Rejection(why) if why else person


def _verify_console_order(deps: Deps, statement: OrderStatement, order: JobInput) -> Person | Rejection:
    """Return the console as the requester where its order is one that our own configuration lets a trigger or a schedule make.

    A console that was taken over can sign what it likes. What it gets is these jobs, their files as they are in this configuration.
    """
    if not deps.vault.is_console(statement.person):
        return Rejection("only the console's own identity orders for a trigger or a schedule")
    why = why_signature_invalid(order.order, deps.vault.public_keys(statement.person)) or _why_not_configured(deps, statement)
    if why is None and statement.parent is not None:
        why = why_no_chain(deps, statement.parent)
    # No groups: it answers nothing, and no policy takes it for a person.
    return Rejection(why) if why else Person(id=statement.person, name=str(statement.origin), groups=frozenset())


def _why_not_configured(deps: Deps, statement: OrderStatement) -> str | None:
    """Return why nothing in the configuration as it is now makes such an order."""
    current, origin = deps.config.current(), str(statement.origin)
    ours: dict[str, TriggeredJob | ScheduledJob] = {triggers.trigger_origin(name): one for name, one in current.triggers.items()}
    ours |= {schedules.schedule_origin(name): one for name, one in current.schedules.items()}
    one = ours.get(origin)
    if one is None:
        return f"the configuration here has no {origin}"
    checks: Mapping[str, Callable[[], bool]] = {
        f"{origin} launches another spec in the configuration here": lambda: one.spec_digest == statement.spec_digest,
        f"{origin} launches another bundle in the configuration here": lambda: one.bundle_digest == statement.bundle,
        f"{origin} makes no such params": lambda: one.could_have_made(statement.params),
        f"{origin} has no parent": lambda: statement.parent is None or isinstance(one, TriggeredJob),
        f"nobody asks for {origin}": lambda: statement.asked_by is None or isinstance(one, ScheduledJob),
    }
    return first_failed(checks)


def _read_spec(order: JobInput) -> JobSpec | Rejection:
    try:
        return checked_spec(order.spec, order.params)
    except InvalidInput as error:
        return Rejection(f"the spec does not hold: {'; '.join(map(str, error.problems))}")
    except UNREADABLE_ERRORS:
        return Rejection("the spec is not readable")


def _why_person_may_not_launch(deps: Deps, person: Person, parent: str | None) -> str | None:
    """Return why this person may not launch jobs, or not from within that one."""
    allowed = deps.config.current().tiers.roles.launch
    if not person.groups & set(allowed):
        return f"{person.name} is in none of the groups that may launch ({', '.join(allowed) or 'none is configured'})"
    why = why_no_parent(deps, parent, person) if parent is not None else None
    return f"it cannot be launched from within {parent}: {why}" if why else None


def _why_statement_mismatch(statement: OrderStatement, order: JobInput) -> str | None:
    checks: Mapping[str, Callable[[], bool]] = {
        "the job's id is not one": lambda: JOB_ID.fullmatch(order.job) is not None,
        "the order is for another job": lambda: statement.job == order.job,
        "the order is for another spec": lambda: statement.spec_digest == _digest_or_none(order.spec),
        "the order is for another bundle": lambda: statement.bundle == order.bundle,
        "the order is for other params": lambda: dict(statement.params) == dict(order.params),
        "the order is for another parent": lambda: statement.parent == order.parent,
    }
    return first_failed(checks)


def _digest_or_none(value: Any) -> str | None:
    try:
        return digest_of(value)
    except UNREADABLE_ERRORS:
        return None
