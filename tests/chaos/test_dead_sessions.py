"""A worker that is killed: another one on its machine knows without Temporal. A worker that is suspended is not taken for dead."""

from __future__ import annotations

import pytest

from activities.session.dead_sessions import find_dead_sessions
from tests.chaos.exposure import ALL, Lab, NetCase, strike_together
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Shop

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

KILLED = NetCase(ALL, "worker kill -9")
LEASE_S = 120


def test_a_worker_revokes_what_a_dead_one_on_its_machine_held_though_temporal_hangs(lab: Lab, rig: Rig, ops: Human, shop: Shop) -> None:
    held = lab.hold([KILLED] * 3)
    (killed,) = rig.workers
    rig.start()
    with rig.freeze("temporal"):
        strike_together(lab, held, killed.kill)
        assert max(item.exposure for item in held) < LEASE_S - 30, "nobody waited for the leases' end"
    for item in held:
        seen = ops.until(item.job)
        assert (seen["state"], seen["reason"], seen["revocation"]["state"]) == ("failed", "worker_lost", "confirmed")
        shop.assert_dead(seen, item.login)
        first = next(entry["data"] for entry in ops.ledger(item.job) if entry["type"] == "revocation.started")
        assert first == {"by": "sweep", "why": "its worker died"}


def test_the_jobs_of_a_suspended_worker_go_on(lab: Lab, rig: Rig, ops: Human) -> None:
    worker = rig.ensure_worker()
    (item,) = lab.hold([KILLED])
    rig.suspend(worker)
    assert find_dead_sessions(rig.settings) == ()
    worker.go_on()
    item.line.sendall(b"0\n")
    assert ops.until(item.job)["state"] == "succeeded"
