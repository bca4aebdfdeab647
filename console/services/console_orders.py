"""Makes the console's own orders, for triggers and schedules, and records each once. Blocking, for a thread. Starts nothing; that is the gateway's.

What the console signs here counts only where the worker's own configuration names the same job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from console.services.submit_job import Taken
from justenough.adapters.configuration.configured_jobs import Own
from justenough.domain.approvals.statements import OrderStatement, Signed, signable
from justenough.domain.approvals.verification import Refused
from justenough.domain.catalog.loader import problems_of
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import canonical
from justenough.domain.core.errors import Conflict, InvalidInput
from justenough.domain.jobs.spec import checked_spec
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import submitted
from justenough.services.verify_order import verify_order

LIFE = timedelta(hours=24)
"""How long an order waits for its approvals, at most: as one that a person signs."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be ordered, of which job of the configuration's."""

    origin: str
    own: Own
    params: Mapping[str, str]
    reason: str
    parent: str | None = None
    asked_by: str | None = None
    """Entity id of who asked for it, where somebody did."""


def earlier(deps: Deps, job: str) -> Taken | None:
    """Return the order of a job as it was recorded; None where it was not."""
    found, view = deps.store.order(job), deps.store.job(job)
    return Taken(job=view, order=JobInput.of(job, *found), new=False) if found and view else None


def ordered(deps: Deps, wish: Wish, *, job: str, entity: str) -> Taken:
    """Sign and record the order of a job by its id. Raises InvalidInput where the job cannot be, Conflict where the order would not hold."""
    order = _order(deps, wish, job=job, entity=entity)
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Refused):
        raise Conflict(f"the order of {wish.origin} does not hold: {verified.why}")
    # Nothing is new where somebody else orders the same at the same time.
    new = bool(deps.store.record([submitted(order, verified, at=deps.now())]))
    kept = earlier(deps, job)
    assert kept is not None, "what is recorded is there"
    return replace(kept, new=new)


def _order(deps: Deps, wish: Wish, *, job: str, entity: str) -> JobInput:
    own, now = wish.own, deps.now().replace(microsecond=0)
    if problems := problems_of(checked_spec(own.spec, wish.params), deps.config.current().catalog):
        raise InvalidInput("job spec", problems)
    if own.bundle is not None:
        deps.store.put_bundle(str(own.bundle_digest), own.bundle)
    statement = OrderStatement(
        job=job,
        spec_digest=own.spec_digest,
        bundle=own.bundle_digest,
        params=wish.params,
        reason=wish.reason,
        person=entity,
        parent=wish.parent,
        origin=wish.origin,
        asked_by=wish.asked_by,
        issued_at=now,
        expires_at=now + LIFE,
    )
    raw = signable(statement)
    signed = Signed(statement=raw, signature=deps.vault.sign_own(entity, canonical(raw)))
    return JobInput.of(job, own.spec, wish.params, own.bundle_digest, signed)
