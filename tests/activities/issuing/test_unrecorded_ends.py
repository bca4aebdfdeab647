"""A credential that ended early while the store was away is recorded as ended when its session ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from activities.issuing.lease_keeper import keep_leases
from justenough.adapters.store.store import Store
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import SPEC, Desk

pytestmark = pytest.mark.servers


async def test_an_end_that_the_ledger_could_not_take_is_recorded_when_the_session_ends(at: Desk) -> None:
    session = await asyncio.to_thread(start_session, at, SPEC["access"][0])
    item = await asyncio.to_thread(session.issue)
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))
    async with keep_leases(without, session.job, session.issuer, [item]) as keeper, asyncio.timeout(180):
        releasing = asyncio.create_task(keeper.give_back(item.credential.id, "the job released it"))
        while session.issuer.holdings.alive:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    await asyncio.wait({releasing})
    assert (await asyncio.to_thread(session.end)).confirmed
    assert session.credential_state() == "confirmed"
