"""Reads the spec of a submitted order with the meaning that it had for its signer. Verifies no signature, records nothing."""

from __future__ import annotations

from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.jobs.spec import JobSpec, checked_spec
from justenough.domain.ledger.events import EventType
from justenough.services.dependencies import Deps


def read_order_spec(deps: Deps, order: JobInput) -> JobSpec:
    """Return an order's spec with its params filled in. Raises InvalidInput.

    An order from before `beyond` existed keeps the meaning that it had when it was signed. It is recognized because neither the order nor
    the ledger entry of its submission contains `beyond`; later entries always do.
    """
    submitted = None if "beyond" in order.spec else deps.store.ledger.entry(f"{order.job}/{EventType.JOB_SUBMITTED}")
    return checked_spec(order.spec, order.params, before_ceiling=submitted is not None and "beyond" not in submitted.data)
