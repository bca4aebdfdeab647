"""What is issued or ends while the store is unavailable is revoked, and recorded when the session ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from activities.issuing.lease_keeper import keep_leases
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.store import Store
from justenough.domain.ledger.events import Event, EventType
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import SPEC, Desk

pytestmark = pytest.mark.servers


async def test_an_end_that_the_ledger_could_not_take_is_recorded_when_the_session_ends(at: Desk) -> None:
    session = await asyncio.to_thread(start_session, at, SPEC["access"][0])
    item = await asyncio.to_thread(session.issue)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))
    async with keep_leases(without, session.job, session.issuer, [item]) as keeper, asyncio.timeout(180):
        releasing = asyncio.create_task(keeper.revoke_credential(item.credential.id, "the job released it"))
        while session.issuer.holdings.alive:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    await asyncio.wait({releasing})
    assert (await asyncio.to_thread(session.end)).confirmed
    assert session.credential_state() == "confirmed"


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), RuntimeError("a bug")], ids=["expected", "unexpected"])
def test_a_credential_whose_issue_the_ledger_could_not_take_is_revoked_at_once(
    at: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    session = start_session(at, SPEC["access"][0])
    held = session.issue()
    ledger, users = at.deps.store.ledger, at.shop.users_of(session.job)
    append = ledger.append

    def refuse_issues(events: Sequence[Event]) -> None:
        if any(event.type in {EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_REVOKED} for event in events):
            raise error
        append(events)

    monkeypatch.setattr(ledger, "append", refuse_issues)
    with pytest.raises(type(error)):
        session.issuer.access(held.access)
    assert at.shop.users_of(session.job) == users, "the job did not get it, so it could not release it"
    assert session.issuer.holdings.alive == (held.credential,)
    monkeypatch.undo()
    assert session.end().confirmed
    assert [view.state for view in at.deps.store.credentials.list(job=session.job).items] == ["confirmed", "confirmed"]
