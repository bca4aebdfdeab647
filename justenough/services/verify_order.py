"""Verifies signed orders with the current people, groups and keys in Vault. Issues and records nothing.

Any input gets a verdict. An error (RetryLater) is raised only if a server does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from justenough.adapters.configuration.configured_jobs import ScheduledJob, TriggeredJob
from justenough.domain.approvals.statements import OrderStatement, SignedStatement, why_not_valid_now, why_signature_invalid
from justenough.domain.approvals.tiers import Person
from justenough.domain.approvals.verification import UNREADABLE_ERRORS, ApprovalVerifier, read_statement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.ids import JOB_ID
from justenough.domain.core.rejection import Rejection
from justenough.domain.integrations import triggers
from justenough.domain.jobs.spec import JobSpec
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import inherited_limit_problems
from justenough.services.order_spec import read_order_spec
from justenough.services.parent_chain import why_no_chain, why_no_parent


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """A valid order: who signed it, the spec with its params filled in, and the signed statement."""

    person: Person
    spec: JobSpec
    statement: OrderStatement
    at: datetime
    """When the order was verified. A job may outlive its statement, if it started while the statement was valid."""

    @property
    def launcher(self) -> str:
        """Whom the job counts for: the trigger or schedule that ordered it, or the entity id of the person who ordered it."""
        return self.statement.origin or self.statement.person


@dataclass(frozen=True, slots=True)
class VaultPeople:
    """People from Vault, and their delegations from the store. A delegation's signature is checked at each use."""

    deps: Deps

    def person(self, entity: str) -> Person | None:
        return self.deps.vault.person(entity, self.deps.settings.people_mounts)

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return self.deps.vault.public_keys(entity)

    def delegation(self, person: str, delegate: str, *, at: datetime) -> SignedStatement | None:
        return self.deps.store.delegations.current_statement(person, delegate, at=at)


def build_approval_verifier(deps: Deps, *, now: datetime) -> ApprovalVerifier:
    """Build the verifier of answers, with the current people and tiers."""
    return ApprovalVerifier(VaultPeople(deps), deps.config.current().tiers, now)


def verify_order(deps: Deps, order: JobInput, *, now: datetime) -> VerifiedOrder | Rejection:
    """Verify an order as of `now`; return it, or why it is invalid. Raises RetryLater if Vault does not answer."""
    # The console may have accepted the order because of an edit that this process has yet to read.
    deps.config.refresh()
    statement = read_statement(OrderStatement, order.order)
    if isinstance(statement, Rejection):
        return statement
    if rejection := _why_statement_mismatch(statement, order) or why_not_valid_now(statement, now=now):
        return rejection
    try:
        spec = read_order_spec(deps, order)
    except InvalidInput as error:
        return Rejection("spec_invalid", f"the spec is invalid: {'; '.join(map(str, error.problems))}")
    is_console = statement.origin is not None
    person = _verify_console_order(deps, statement, order) if is_console else _verify_person_order(deps, statement, order, now=now)
    if isinstance(person, Rejection):
        return person
    if more := inherited_limit_problems(deps, spec, statement):
        problems = "; ".join(map(str, more))
        return Rejection("exceeds_ancestors", f"it requests more than its parent job has: {problems}")
    return VerifiedOrder(person=person, spec=spec, statement=statement, at=now)


def _verify_console_order(deps: Deps, statement: OrderStatement, order: JobInput) -> Person | Rejection:
    """Return the console as the requester if one of our configured triggers or schedules could have made this order, else why not.

    A compromised console can sign anything, but only these jobs are accepted, with the files of this configuration.
    """
    if not deps.vault.is_console(statement.person):
        return Rejection("not_the_console", "only the console's identity can order a job for a trigger or schedule")
    rejection = why_signature_invalid(order.order, deps.vault.public_keys(statement.person)) or _why_not_configured(deps, statement)
    if rejection is None and statement.parent is not None:
        rejection = why_no_chain(deps, statement.parent)
    if rejection is None and statement.asked_by is not None and VaultPeople(deps).person(statement.asked_by) is None:
        # They may have another entity by now, which could decide the requests of their own run.
        rejection = Rejection("requester_inactive", "the person who requested the run is no longer an active person")
    # Without groups, the console cannot answer requests, and no policy treats it as a person.
    return rejection or Person(id=statement.person, name=str(statement.origin), groups=frozenset())


def _verify_person_order(deps: Deps, statement: OrderStatement, order: JobInput, *, now: datetime) -> Person | Rejection:
    """Return the person who signed the order if they may launch it, or why not."""
    person = build_approval_verifier(deps, now=now).verify_signer(statement.person, order.order)
    if isinstance(person, Rejection):
        return person
    if statement.asked_by is not None:
        return Rejection("asked_by_not_console", "only the console may name the person who requested an order")
    allowed = deps.config.current().tiers.roles.launch
    if not person.groups & set(allowed):
        groups = ", ".join(allowed) or "none is configured"
        return Rejection("not_entitled", f"{person.name} is in none of the groups that may launch ({groups})")
    unknown = why_no_parent(deps, statement.parent, person) if statement.parent is not None else None
    return Rejection(unknown.code, f"{statement.parent} cannot be its parent job: {unknown}") if unknown else person


def _why_not_configured(deps: Deps, statement: OrderStatement) -> Rejection | None:
    """Return why the current configuration could not have made this order, or None if it could."""
    current, origin = deps.config.current(), str(statement.origin)
    configured: dict[str, TriggeredJob | ScheduledJob] = {triggers.trigger_origin(name): job for name, job in current.triggers.items()}
    configured |= {triggers.schedule_origin(name): job for name, job in current.schedules.items()}
    configured_job = configured.get(origin)
    if configured_job is None:
        return Rejection("origin_unknown", f"this configuration has no {origin}")
    is_triggered, is_scheduled = isinstance(configured_job, TriggeredJob), isinstance(configured_job, ScheduledJob)
    checks = (
        (configured_job.spec_digest == statement.spec_digest, "other_spec", "launches a different spec in this configuration"),
        (configured_job.bundle_digest == statement.bundle, "other_bundle", "launches a different bundle in this configuration"),
        (configured_job.could_have_made(statement.params), "other_params", "does not launch its job with these params"),
        (statement.parent is None or is_triggered, "other_parent", "cannot have a parent job"),
        (statement.asked_by is None or is_scheduled, "asked_by_not_schedule", "cannot be requested by a person"),
    )
    return next((Rejection(code, f"{origin} {message}") for is_met, code, message in checks if not is_met), None)


def _why_statement_mismatch(statement: OrderStatement, order: JobInput) -> Rejection | None:
    if not JOB_ID.fullmatch(order.job):
        return Rejection("job_id_invalid", "the job's id is not valid")
    spec_digest: str | None = None
    with suppress(*UNREADABLE_ERRORS):
        spec_digest = digest_of(order.spec)
    checks = (
        (statement.job == order.job, "other_job", "another job"),
        (statement.spec_digest == spec_digest, "other_spec", "another spec"),
        (statement.bundle == order.bundle, "other_bundle", "another bundle"),
        (dict(statement.params) == dict(order.params), "other_params", "other params"),
        (statement.parent == order.parent, "other_parent", "another parent"),
    )
    return next((Rejection(code, f"the order is for {other}") for is_same, code, other in checks if not is_same), None)
