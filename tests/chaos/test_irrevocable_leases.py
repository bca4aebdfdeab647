"""After six attempts, about ten minutes, Vault calls a lease irrevocable and stops trying. JustEnough goes on."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
import structlog

from tests.chaos.consistency import assert_one_outcome
from tests.chaos.job_latch import hold_jobs
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Login, Shop, Witness, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(3600)]
log = structlog.get_logger()

GIVE_UP_TIMEOUT_S = 1800
"""Seconds in which it must have."""
CONFIRM_TIMEOUT_S = 60
"""Seconds from a target's return until everything is confirmed."""


def irrevocable_leases(shop: Shop) -> list[str]:
    """Return the leases that Vault has given up."""
    with shop.admin() as vault:
        found = vault.get("sys/leases", params={"type": "irrevocable"}).raise_for_status().json()["data"]
    return [item["lease_id"] for item in found["leases"] or ()]


@pytest.mark.usefixtures("worker")
def test_a_lease_that_vault_gave_up_revoking_is_revoked_when_its_target_is_back(rig: Rig, ops: Human, shop: Shop) -> None:
    with closing(Witness()) as witness, hold_jobs() as held:
        job = ops.launch(spec(f"{witness.hand_over}; {held.wait}"))
        login: Login = witness.login()
        (credential,) = ops.job(job)["credentials"]
        rig.postgres.close()
        held.open()
        ops.until(job, "revoking")
    began = time.monotonic()
    until(lambda: credential["lease_id"] in irrevocable_leases(shop), "Vault gives its lease up", within=GIVE_UP_TIMEOUT_S)
    log.warning("irrevocable", after=time.monotonic() - began)
    assert shop.can_log_in(login)
    assert ops.job(job)["revocation"]["state"] == "overdue"
    assert ops.api.post(f"jobs/{job}/prove").json()["dead"] is False
    rig.postgres.open()
    back = time.monotonic()
    until(lambda: not shop.can_log_in(login), "it is dead", within=CONFIRM_TIMEOUT_S)
    dead = time.monotonic() - back
    assert ops.until(job, within=CONFIRM_TIMEOUT_S - (time.monotonic() - back))["state"] == "succeeded"
    log.warning("irrevocable", dead=dead, confirmed=time.monotonic() - back)
    assert_one_outcome(ops, shop, job, login)
    assert credential["lease_id"] not in irrevocable_leases(shop)
