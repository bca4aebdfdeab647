"""A stranger takes the tasks of the revocation queue and answers them, and deletes the sweep's schedule: workers revoke all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from tests.attacks.intruder import OURS, Intruder
from tests.chaos.exposure import ALL, Lab, NetCase
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Shop
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCHEDULE = "sweep-dev"
ONLY_SWEEP = NetCase("sweep", "success")


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
    # The jobs may begin in any order.
    running, answered, held = sorted(lab.hold([ONLY_SWEEP, ONLY_SWEEP, NetCase(ALL, "success")]), key=lambda item: item.case.net)
    (credential,) = ops.job(running.job)["credentials"]
    stolen: list[str] = []

    @activity.defn(name="revoke_job")
    async def revoke_job(revoke_input: dict[str, Any]) -> dict[str, Any]:
        stolen.append(revoke_input["job"])
        while revoke_input["job"] == held.job:
            activity.heartbeat()
            await asyncio.sleep(1)
        return {"confirmed": True}

    @activity.defn(name="revoke_credential")
    async def revoke_credential(revoke_input: dict[str, Any]) -> dict[str, Any]:
        stolen.append(revoke_input["job"])
        return {"confirmed": True}

    @activity.defn(name="sweep")
    async def sweep(nonce: str = "") -> dict[str, Any]:
        return {"looked_at": 1000, "failures": [nonce]}

    thief.run_async(thief.client.get_schedule_handle(SCHEDULE).delete())
    with thief.steal_tasks(f"{OURS}-endings", [revoke_job, revoke_credential, sweep]):
        for item in (answered, held):
            lab.strike(item)
        running.ended_at = time.monotonic()
        told = lab.watchers.submit(ops.api.post, f"credentials/{credential['id']}/revoke", timeout=300)
        lab.watch(running)
        # A worker may win the race for one; then its label, or its session, leaves what the theft would leave.
        until(lambda: stolen, "a revocation is stolen")
        exposures = answered.exposure, held.exposure, running.exposure
        for item in (answered, held):
            until(lambda item=item: ops.job(item.job)["revocation"]["state"] == "confirmed", "it is proven")  # type: ignore[misc]
    assert max(exposures) < 60, f"{exposures}: the leases, which nobody renews, end after 120 s"
    assert told.result(300).status_code in {200, 202}
    assert ops.job(running.job)["state"] == "running"
    running.line.sendall(b"0\n")
    for item in (answered, held):
        assert {entry["data"]["by"] for entry in ops.ledger(item.job) if entry["type"] == "credential.revoked"} == {"sweep"}
        shop.assert_dead(ops.job(item.job), item.login)
    until(lambda: has_schedule(thief), "a worker has restored the schedule", within=120)


def test_heartbeats_in_a_dead_sessions_name_do_not_keep_its_access(lab: Lab, thief: Intruder, rig: Rig, ops: Human, shop: Shop) -> None:
    (item,) = lab.hold([ONLY_SWEEP])

    async def keep_alive() -> None:
        """Send heartbeats for the session; whoever knows the ids may."""
        execution = await thief.client.get_workflow_handle(item.job).describe()
        (session,) = execution.raw_description.pending_activities
        handle = thief.client.get_async_activity_handle(workflow_id=item.job, run_id=execution.run_id, activity_id=session.activity_id)
        while True:
            await handle.heartbeat()
            await asyncio.sleep(1)

    with thief.run_beside(keep_alive()):
        item.ended_at = time.monotonic()
        # The worker of its session dies; another has this lease instead of 60 s.
        rig.start_alone(labelled=True, JUSTENOUGH_TEST_LEASE="15")
        lab.watch(item)
        assert item.exposure < 90, "its lease in Vault, which nobody renews, ends after 120 s"
        until(lambda: ops.job(item.job)["revocation"]["state"] == "confirmed", "it is proven")
        # To Temporal its session lives.
        assert ops.job(item.job)["ended_at"] is None
    assert {entry["data"]["by"] for entry in ops.ledger(item.job) if entry["type"] == "credential.revoked"} == {"sweep"}
    lab.administrator.terminate(item.job)
    shop.assert_dead(ops.job(item.job), item.login)
