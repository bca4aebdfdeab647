"""Verifies signed orders with people, groups and keys as Vault has them now. Issues and records nothing.

Input of any shape gets a verdict; only a server that does not answer raises (RetryLater).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from justenough.adapters.configuration.configured_jobs import ScheduledJob, TriggeredJob
from justenough.domain.approvals.statements import OrderStatement, SignedStatement, why_not_valid_now, why_signature_invalid
from justenough.domain.approvals.tiers import Person
from justenough.domain.approvals.verification import UNREADABLE_ERRORS, ApprovalVerifier, read_statement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.ids import JOB_ID
from justenough.domain.core.rejection import Rejection
from justenough.domain.integrations import schedules, triggers
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import inherited_limit_problems
from justenough.services.parent_chain import why_no_chain, why_no_parent


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """A valid order: who signed it, the spec with its params filled in, and the signed statement."""

    person: Person
    spec: JobSpec
    statement: OrderStatement
    at: datetime
    """When it was verified. A job may outlive its statement: it must only have started while the statement was valid."""


@dataclass(frozen=True, slots=True)
class VaultPeople:
    """People from Vault, and their delegations from the store. Each use of a delegation checks its signature."""

    deps: Deps

    def person(self, entity: str) -> Person | None:
        return self.deps.vault.person(entity, self.deps.settings.people_mounts)

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return self.deps.vault.public_keys(entity)

    def delegation(self, person: str, delegate: str) -> SignedStatement | None:
        return self.deps.store.delegations.current_statement(person, delegate)


def build_approval_verifier(deps: Deps, *, now: datetime) -> ApprovalVerifier:
    """Build the verifier of answers, with the current people and tiers."""
    return ApprovalVerifier(VaultPeople(deps), deps.config.current().tiers, now)


def verify_order(deps: Deps, order: JobInput, *, now: datetime) -> VerifiedOrder | Rejection:
    """Verify an order as of `now`; return it, or why it is invalid. Raises RetryLater if Vault does not answer."""
    statement = read_statement(OrderStatement, order.order)
    if isinstance(statement, Rejection):
        return statement
    spec = _read_spec(order)
    if isinstance(spec, Rejection):
        return spec
    if rejection := _why_statement_mismatch(statement, order) or why_not_valid_now(statement, now=now):
        return rejection
    person = _verify_orderer(deps, statement, order, now=now)
    if isinstance(person, Rejection):
        return person
    if more := inherited_limit_problems(deps, spec, statement):
        return Rejection("exceeds_ancestors", f"it asks for more than the job that launches it has: {'; '.join(map(str, more))}")
    return VerifiedOrder(person=person, spec=spec, statement=statement, at=now)


def _verify_orderer(deps: Deps, statement: OrderStatement, order: JobInput, *, now: datetime) -> Person | Rejection:
    """Return who ordered the job (a person, or the console for a trigger or schedule), or why they may not."""
    if statement.origin is not None:
        return _verify_console_order(deps, statement, order)
    person = build_approval_verifier(deps, now=now).verify_signer(statement.person, order.order)
    if isinstance(person, Rejection):
        return person
    if statement.asked_by is not None:
        return Rejection("asked_by_not_console", "only the console says who asked it for an order")
    return _why_person_may_not_launch(deps, person, statement.parent) or person


def _verify_console_order(deps: Deps, statement: OrderStatement, order: JobInput) -> Person | Rejection:
    """Return the console as the requester if one of our configured triggers or schedules could have made this order, or why not.

    A compromised console can sign anything, but it gets only these jobs, with their files as they are in this configuration.
    """
    if not deps.vault.is_console(statement.person):
        return Rejection("not_the_console", "only the console's own identity orders for a trigger or a schedule")
    rejection = why_signature_invalid(order.order, deps.vault.public_keys(statement.person)) or _why_not_configured(deps, statement)
    if rejection is None and statement.parent is not None:
        rejection = why_no_chain(deps, statement.parent)
    # Without groups the console can answer no request, and no policy treats it as a person.
    return rejection or Person(id=statement.person, name=str(statement.origin), groups=frozenset())


def _why_not_configured(deps: Deps, statement: OrderStatement) -> Rejection | None:
    """Return why the current configuration could not have made this order, or None if it could."""
    current, origin = deps.config.current(), str(statement.origin)
    configured: dict[str, TriggeredJob | ScheduledJob] = {triggers.trigger_origin(name): job for name, job in current.triggers.items()}
    configured |= {schedules.schedule_origin(name): job for name, job in current.schedules.items()}
    configured_job = configured.get(origin)
    if configured_job is None:
        return Rejection("origin_unknown", f"the configuration here has no {origin}")
    if configured_job.spec_digest != statement.spec_digest:
        return Rejection("other_spec", f"{origin} launches another spec in the configuration here")
    if configured_job.bundle_digest != statement.bundle:
        return Rejection("other_bundle", f"{origin} launches another bundle in the configuration here")
    if not configured_job.could_have_made(statement.params):
        return Rejection("other_params", f"{origin} makes no such params")
    if statement.parent is not None and not isinstance(configured_job, TriggeredJob):
        return Rejection("other_parent", f"{origin} has no parent")
    is_asked_for = statement.asked_by is not None and not isinstance(configured_job, ScheduledJob)
    return Rejection("asked_by_not_schedule", f"nobody asks for {origin}") if is_asked_for else None


def _read_spec(order: JobInput) -> JobSpec | Rejection:
    try:
        return checked_spec(order.spec, order.params)
    except InvalidInput as error:
        return Rejection("spec_invalid", f"the spec does not hold: {'; '.join(map(str, error.problems))}")
    except UNREADABLE_ERRORS:
        return Rejection("spec_unreadable", "the spec is not readable")


def _why_person_may_not_launch(deps: Deps, person: Person, parent: str | None) -> Rejection | None:
    """Return why a person may not launch jobs, or not from within `parent`; None if they may."""
    allowed = deps.config.current().tiers.roles.launch
    if not person.groups & set(allowed):
        groups = ", ".join(allowed) or "none is configured"
        return Rejection("not_entitled", f"{person.name} is in none of the groups that may launch ({groups})")
    unknown = why_no_parent(deps, parent, person) if parent is not None else None
    return Rejection(unknown.code, f"it cannot be launched from within {parent}: {unknown}") if unknown else None


def _why_statement_mismatch(statement: OrderStatement, order: JobInput) -> Rejection | None:
    if not JOB_ID.fullmatch(order.job):
        return Rejection("job_id_invalid", "the job's id is not one")
    if statement.job != order.job:
        return Rejection("other_job", "the order is for another job")
    if statement.spec_digest != _digest_or_none(order.spec):
        return Rejection("other_spec", "the order is for another spec")
    if statement.bundle != order.bundle:
        return Rejection("other_bundle", "the order is for another bundle")
    if dict(statement.params) != dict(order.params):
        return Rejection("other_params", "the order is for other params")
    return None if statement.parent == order.parent else Rejection("other_parent", "the order is for another parent")


def _digest_or_none(value: Any) -> str | None:
    try:
        return digest_of(value)
    except UNREADABLE_ERRORS:
        return None
