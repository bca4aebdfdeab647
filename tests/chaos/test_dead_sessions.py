"""A worker is killed: its watcher, or another worker on its machine, revokes without Temporal. A suspended worker does not count as dead."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from activities.session.dead_sessions import find_dead_sessions
from tests.chaos.exposure import ALL, ExposedJob, Lab, NetCase, strike_together
from tests.chaos.rig import Rig, watcher_of
from tests.support.people import Human
from tests.support.shop import Shop

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

KILLED = NetCase(ALL, "worker kill -9")
MAX_EXPOSURE_S = 90
"""The leases, which nobody renews, end after 120 s."""


def assert_revoked_without_temporal(held: Sequence[ExposedJob], ops: Human, shop: Shop) -> None:
    """Fail unless the jobs have ended because their worker was lost, and something that saw it die was the first to revoke."""
    for item in held:
        seen = ops.until(item.job)
        assert (seen["state"], seen["reason"], seen["revocation"]["state"]) == ("failed", "worker_lost", "confirmed")
        shop.assert_dead(seen, item.login)
        first = next(entry["data"] for entry in ops.ledger(item.job) if entry["type"] == "revocation.started")
        assert first == {"by": "sweep", "why": "its worker died"}


def test_the_access_of_a_dead_workers_jobs_is_revoked_even_if_no_worker_is_running(lab: Lab, rig: Rig, ops: Human, shop: Shop) -> None:
    held = lab.hold([KILLED] * 3)
    (worker,) = rig.workers
    # End the watcher, too, like a service manager that stops everything around a worker.
    watcher_of(worker).terminate()
    strike_together(lab, held, worker.kill)
    assert max(item.exposure for item in held) < MAX_EXPOSURE_S
    rig.ensure_worker()
    assert_revoked_without_temporal(held, ops, shop)


def test_another_worker_on_its_machine_revokes_if_the_watcher_died_too_though_temporal_hangs(
    lab: Lab, rig: Rig, ops: Human, shop: Shop
) -> None:
    worker = rig.ensure_worker()
    held = lab.hold([KILLED] * 3)
    watcher = watcher_of(worker)
    rig.start()
    watcher.kill()
    with rig.freeze("temporal"):
        strike_together(lab, held, worker.kill)
        assert max(item.exposure for item in held) < MAX_EXPOSURE_S
    assert_revoked_without_temporal(held, ops, shop)


def test_the_jobs_of_a_suspended_worker_go_on(lab: Lab, rig: Rig, ops: Human) -> None:
    worker = rig.ensure_worker()
    (item,) = lab.hold([KILLED])
    rig.suspend(worker)
    assert find_dead_sessions(rig.settings) == ()
    worker.go_on()
    item.line.sendall(b"0\n")
    assert ops.until(item.job)["state"] == "succeeded"


def test_a_watcher_ends_with_its_worker(rig: Rig) -> None:
    worker = rig.start()
    watcher = watcher_of(worker)
    worker.terminate()
    worker.process.wait(180)
    watcher.wait(180)
