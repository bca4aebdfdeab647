"""People ask for a credential to be revoked while its session has only just issued it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from activities.broker import Broker
from activities.issuing.lease_keeper import LeaseKeeper
from activities.session import people_requests
from activities.session.people_requests import RequestedRevocations, RequestWatch
from justenough.adapters.store.errors import StoreUnavailable
from justenough.domain.core.errors import NotFound
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.states import CredentialState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import EntryView
from justenough.services import job_history
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers
ORDERS = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up"}


async def test_a_credential_that_people_revoke_before_its_lease_is_kept_is_revoked(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_requests, "RETRY_INTERVAL_S", 0.05)
    session = await asyncio.to_thread(start_session, at, ORDERS)
    item = await asyncio.to_thread(session.issue)
    lease_keeper, refused = LeaseKeeper(at.deps, session.job, session.issuer), asyncio.Event()
    revoke_credential = lease_keeper.revoke_credential

    async def note_refusal(*arguments: Any, **options: Any) -> None:
        try:
            await revoke_credential(*arguments, **options)
        except NotFound:
            refused.set()
            raise

    monkeypatch.setattr(lease_keeper, "revoke_credential", note_refusal)
    requests = RequestedRevocations(at.deps, session.job, session.issuer)
    credential, who = item.credential.id, {"person": "e-ops", "name": "ops"}
    asked = build_event(EventType.REVOCATION_REQUESTED, session.job, at=at.deps.now(), about=credential, credential=credential, **who)
    (entry,) = at.deps.store.ledger.append([asked])
    requests.add(entry)
    serving = asyncio.create_task(requests.serve(lease_keeper))
    try:
        async with asyncio.timeout(60):
            await refused.wait()
            lease_keeper.keep(item)
            while (session.credential_state()) != CredentialState.CONFIRMED:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
    finally:
        serving.cancel()
        await lease_keeper.close()


async def test_a_person_revoked_a_credential_however_many_others_of_the_job_were_revoked_before(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_history, "MAX_ENTRIES_READ", 2_000)
    session = await asyncio.to_thread(start_session, at, ORDERS)
    item, ledger, now = await asyncio.to_thread(session.issue), at.deps.store.ledger, at.deps.now()

    async def notify(request: str) -> None:
        raise AssertionError(request)

    lease_keeper = LeaseKeeper(at.deps, session.job, session.issuer)
    broker = Broker(at.deps, session.verified, session.issuer, lease_keeper, Redactor(()), owner="owner", notify_workflow=notify)
    others = (f"{item.credential.id}.{number}" for number in range(2, job_history.MAX_ENTRIES_READ + 3))
    ended = [
        build_event(EventType.CREDENTIAL_REVOKED, session.job, at=now, about=other, credential=other, by="session", why=None)
        for other in others
    ]
    await asyncio.to_thread(ledger.append, ended)
    assert not await broker.was_revoked(item)
    who, credential = {"person": "e-ops", "name": "ops"}, item.credential.id
    asked = build_event(EventType.REVOCATION_REQUESTED, session.job, at=now, about=f"{credential}/e-ops", credential=credential, **who)
    await asyncio.to_thread(ledger.append, [asked])
    assert await broker.was_revoked(item)
    await asyncio.to_thread(session.end)


async def test_a_request_after_a_failover_that_lost_entries_reaches_its_session(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_requests, "POLL_INTERVAL_S", 0.01)
    ledger, job, received = at.deps.store.ledger, at.job(), asyncio.Queue[EntryView]()
    head, news, calls = ledger.head, ledger.news, []
    stop, later = (
        build_event(EventType.STOP_REQUESTED, job, at=at.deps.now(), about=f"{how}/e-ops", how=how, person="e-ops", name="ops")
        for how in ("cancel", "kill")
    )

    def fail_over_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            ledger.append([stop])
            raise StoreUnavailable("failing over")
        return news(*arguments, **options)

    # The failover loses the ledger's ten newest entries.
    monkeypatch.setattr(ledger, "head", lambda: head().model_copy(update={"position": head().position + (0 if calls else 10)}))
    monkeypatch.setattr(ledger, "news", fail_over_once)

    def receive(entry: EntryView) -> None:
        if entry.id == stop.id:
            ledger.append([later])
        received.put_nowait(entry)

    requests = RequestWatch(at.deps.store)
    # Other sessions of the worker end before this one starts, and while it runs.
    async with requests.watch(at.job(), receive):
        pass
    async with requests.watch(job, receive), asyncio.timeout(60):
        async with requests.watch(at.job(), receive):
            pass
        assert (await received.get()).id == stop.id
        assert (await received.get()).id == later.id
