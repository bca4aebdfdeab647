"""Signs and records the console's own orders, for triggers and schedules, each once. Starts nothing. Blocking, for a thread.

The worker accepts an order signed here only if its own configuration names the same job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from console.services.submit_job import SubmittedOrder, find_recorded_order
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
"""How long an order may wait for its approvals: as long as one that a person signs."""


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """Which configured job to order, with which params and for what reason."""

    origin: str
    configured_job: ConfiguredJob
    params: Mapping[str, str]
    reason: str
    parent: str | None = None
    asked_by: str | None = None
    """Entity id of the person who asked for it, if one did."""


def record_console_order(deps: Deps, request: OrderRequest, *, job: str, entity: str) -> SubmittedOrder:
    """Sign and record the order of a job by its id. Raises InvalidInput if the job's spec is invalid, Conflict if the order would not be accepted."""
    order = _build_order(deps, request, job=job, entity=entity)
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Rejection):
        raise Conflict(f"the order of {request.origin} is not valid: {verified}")
    # Another console may have recorded the same order at the same time; then it is not new.
    new = bool(deps.store.ledger.append([job_submitted_event(order, verified, at=deps.now())]))
    recorded = find_recorded_order(deps, job)
    assert recorded is not None, "it has just been recorded"
    return replace(recorded, new=new)


def _build_order(deps: Deps, request: OrderRequest, *, job: str, entity: str) -> JobInput:
    configured, now = request.configured_job, deps.now().replace(microsecond=0)
    if problems := problems_in_spec(checked_spec(configured.spec, request.params), deps.config.current().catalog):
        raise InvalidInput("job spec", problems)
    if configured.bundle is not None:
        deps.store.bundles.add(str(configured.bundle_digest), configured.bundle)
    statement = OrderStatement(
        job=job,
        spec_digest=configured.spec_digest,
        bundle=configured.bundle_digest,
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
    return JobInput.of(job, OrderRecord(configured.spec, request.params, configured.bundle_digest, signed))
