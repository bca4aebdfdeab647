"""A stranger takes the tasks of the endings' queue and answers them, and deletes the sweep's schedule: workers revoke all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from tests.attacks.intruder import OURS, Intruder
from tests.chaos.exposure import Lab, NetCase
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Shop
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCHEDULE = "sweep-dev"
ONLY_SWEEP = NetCase("sweep", "success")


@pytest.fixture(scope="module")
def lab(rig: Rig, shop: Shop, ops: Human, lead: Human) -> Iterator[Lab]:
    """Jobs whose labels leave their revocation to the sweep, as if every other net's task had been stolen."""
    with Lab.open(rig, shop, ops, lead, pause=1) as lab:
        rig.start_alone(labelled=True)
        yield lab


@pytest.fixture(scope="module")
def thief(rig: Rig) -> Iterator[Intruder]:
    with Intruder.break_in(rig.stack) as entered:
        yield entered


def has_schedule(thief: Intruder) -> bool:
    try:
        thief.run_async(thief.client.get_schedule_handle(SCHEDULE).describe())
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


def test_stolen_revocations_and_sweeps_prolong_no_access(lab: Lab, thief: Intruder, ops: Human, shop: Shop) -> None:
    answered, held = lab.hold([ONLY_SWEEP] * 2)
    stolen: list[str] = []

    @activity.defn(name="revoke_job")
    async def revoke_job(revoke_input: dict[str, Any]) -> dict[str, Any]:
        stolen.append(revoke_input["job"])
        while revoke_input["job"] == held.job:
            activity.heartbeat()
            await asyncio.sleep(1)
        return {"confirmed": True}

    @activity.defn(name="sweep")
    async def sweep() -> dict[str, Any]:
        return {"looked_at": 1000}

    thief.run_async(thief.client.get_schedule_handle(SCHEDULE).delete())
    with thief.steal_tasks(f"{OURS}-endings", [revoke_job, sweep]):
        for item in (answered, held):
            lab.strike(item)
        until(lambda: {answered.job, held.job} <= set(stolen), "both revocations are stolen")
        # Without a renewal, Vault itself ends them after two minutes.
        exposures = answered.exposure, held.exposure
        for item in (answered, held):
            until(lambda item=item: ops.job(item.job)["revocation"]["state"] == "confirmed", "it is proven")  # type: ignore[misc]
    assert max(exposures) < 60, f"{exposures}: the leases, which nobody renews, end after 120 s"
    for item in (answered, held):
        assert {entry["data"]["by"] for entry in ops.ledger(item.job) if entry["type"] == "credential.revoked"} == {"sweep"}
        shop.assert_dead(ops.job(item.job), item.login)
    until(lambda: has_schedule(thief), "a worker has restored the schedule", within=120)
