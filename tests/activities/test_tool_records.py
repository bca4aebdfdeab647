"""A job's tool calls reach the ledger, and their answers the job, even if the store becomes unavailable right after a call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

import pytest

from activities.broker.broker import Broker
from activities.broker.tools import ToolGateway
from activities.issuing.issuer import Issuer
from activities.issuing.lease_keeper import keep_leases
from activities.issuing.results import PendingRequest
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.ledger_repository import LedgerRepository
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.redaction import Redactor
from justenough.domain.ledger.events import Event, EventType
from justenough.services.job_history import JobHistory
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.vault_shop import SPEC, Desk
from tests.support.claims import claim_job

pytestmark = pytest.mark.servers


async def ignore_progress(pending: PendingRequest, seconds: float) -> None:
    """Hear of progress."""


async def test_a_call_is_answered_and_recorded_although_the_store_was_away_right_after_it(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    deps, job = at.deps, new_job_id("dev", now=at.deps.now())
    order = at.shop.newcomer("caller", "ops").order(job, now=deps.now(), spec=SPEC)
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    deps.store.ledger.append(order_events(deps, order, verified))
    assert claim_job(deps.store, job, run="run", owner="owner", now=deps.now())
    issuer, append, fails = Issuer(deps, order, verified, JobHistory(), owner="owner"), LedgerRepository.append, [True]

    def append_later(ledger: LedgerRepository, events: Iterable[Event]) -> Any:
        told = tuple(events)
        if fails and any(event.type is EventType.TOOL_CALLED for event in told):
            raise StoreUnavailable("the store restarts")
        return append(ledger, told)

    def recorded() -> list[str]:
        return [entry.data["outcome"] for entry in deps.store.ledger.entries(job=job, types=[EventType.TOOL_CALLED]).items]

    monkeypatch.setattr(LedgerRepository, "append", append_later)
    async with keep_leases(deps, job, issuer, []) as lease_keeper:
        broker = Broker(deps, verified, issuer, lease_keeper, Redactor(()), owner="owner", notify_workflow=cast("Any", None))
        tools = ToolGateway(deps, verified, issuer, broker)
        for calls in (0, 2):
            answer = await tools.call("find-order", {"order_id": 1}, report_progress=ignore_progress, max_wait=0)
            assert (answer.failed, list(json.loads(answer.text))) == (False, ["rows"])
            assert recorded() == ["done"] * calls
            waiting = [event.type for event in tools.unrecorded_events()]
            assert waiting == ([] if calls else [EventType.CREDENTIAL_USED, EventType.TOOL_CALLED])
            fails.clear()
