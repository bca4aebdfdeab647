"""Makes the console's own orders, for triggers and schedules, and records each once. Blocking, for a thread. Starts nothing; that is the gateway's.

What the console signs here counts only where the worker's own configuration names the same job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from console.services.submit_job import SubmittedOrder
from justenough.adapters.configuration.configured_jobs import ConfiguredJob
from justenough.domain.approvals.statements import OrderRecord, OrderStatement, SignedStatement, to_signable
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import Conflict, InvalidInput
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import checked_spec
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import job_submitted_event
from justenough.services.verify_order import verify_order

ORDER_LIFETIME = timedelta(hours=24)
"""How long an order waits for its approvals, at most: as one that a person signs."""


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What is to be ordered, of which job of the configuration's."""

    origin: str
    configured_job: ConfiguredJob
    params: Mapping[str, str]
    reason: str
    parent: str | None = None
    asked_by: str | None = None
    """Entity id of who asked for it, where somebody did."""


def find_recorded_order(deps: Deps, job: str) -> SubmittedOrder | None:
    """Return the order of a job as it was recorded; None where it was not."""
    record, view = deps.store.jobs.order(job), deps.store.jobs.get(job)
    return SubmittedOrder(job=view, order=JobInput.of(job, record), new=False) if record and view else None


def record_console_order(deps: Deps, request: OrderRequest, *, job: str, entity: str) -> SubmittedOrder:
    """Sign and record the order of a job by its id. Raises InvalidInput where the job cannot be, Conflict where the order would not hold."""
    order = _build_order(deps, request, job=job, entity=entity)
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Rejection):
        raise Conflict(f"the order of {request.origin} does not hold: {verified}")
    # Nothing is new where somebody else orders the same at the same time.
    new = bool(deps.store.ledger.append([job_submitted_event(order, verified, at=deps.now())]))
    kept = find_recorded_order(deps, job)
    assert kept is not None, "what is recorded is there"
    return replace(kept, new=new)


def _build_order(deps: Deps, request: OrderRequest, *, job: str, entity: str) -> JobInput:
    own, now = request.configured_job, deps.now().replace(microsecond=0)
    if problems := problems_in_spec(checked_spec(own.spec, request.params), deps.config.current().catalog):
        raise InvalidInput("job spec", problems)
    if own.bundle is not None:
        deps.store.bundles.put(str(own.bundle_digest), own.bundle)
    statement = OrderStatement(
        job=job,
        spec_digest=own.spec_digest,
        bundle=own.bundle_digest,
        params=request.params,
        reason=request.reason,
        person=entity,
        parent=request.parent,
        origin=request.origin,
        asked_by=request.asked_by,
        issued_at=now,
        expires_at=now + ORDER_LIFETIME,
    )
    raw = to_signable(statement)
    signed = SignedStatement(statement=raw, signature=deps.vault.sign_own(entity, to_canonical_json(raw)))
    return JobInput.of(job, OrderRecord(own.spec, request.params, own.bundle_digest, signed))
