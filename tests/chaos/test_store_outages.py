"""A store that cannot be written: nothing is issued, revocation continues, and the ledger gets the entries once there is space again."""

from __future__ import annotations

import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import structlog

from justenough.adapters.store import Store
from tests.chaos.administrator import Administrator
from tests.chaos.consistency import assert_one_outcome
from tests.chaos.job_latch import Latch, hold_jobs
from tests.chaos.rig import Rig, Worker
from tests.support.people import Human
from tests.support.shop import Shop, Witness, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
log = structlog.get_logger()

REVOKE_TIMEOUT_S = 180
"""Seconds on a busy machine in which access ends while the store cannot be written: it is given two, twice, before a revocation goes on
without it. The log has what it took.
"""


@contextmanager
def fill_disk(pid: int) -> Iterator[None]:
    """Prevent a process from writing to any file for a block, its own log included."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def lock_store(rig: Rig) -> Iterator[None]:
    """Hold the store's write lock for a block."""
    with closing(sqlite3.connect(rig.stack.database_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def held() -> Iterator[Latch]:
    with hold_jobs() as held:
        yield held


def assert_chains_hold(rig: Rig) -> None:
    """Fail unless every chain of the ledger verifies."""
    with closing(Store(rig.stack.database_url)) as store:
        report = store.ledger.verify()
        assert report.sound, report.problems


def test_a_console_on_a_full_disk_rejects_orders_with_that_reason(rig: Rig, ops: Human, shop: Shop, worker: Worker) -> None:
    order = ops.order(spec())
    with fill_disk(shop.pid_of("console")):
        answer = ops.api.post("jobs", json=order)
        assert (answer.status_code, ops.api.get(f"jobs/{order['id']}").status_code) == (503, 404), answer.text
    assert worker.alive
    assert ops.api.post("jobs", json=order).status_code == 201
    assert ops.until(order["id"])["state"] == "succeeded"


def test_on_a_full_disk_nothing_is_issued_and_running_jobs_can_be_revoked_at_once(
    rig: Rig, ops: Human, shop: Shop, worker: Worker, witness: Witness, held: Latch
) -> None:
    talks = f"for _ in $(seq 30); do echo is anybody there; sleep 0.1; done; {witness.hand_over}; {held.wait}"
    scripts = (held.wait, "sleep 300", talks)
    ending, killed, talking = (ops.launch(spec(f"{witness.hand_over}; {script}")) for script in scripts)
    logins = [witness.login() for _ in scripts]
    with fill_disk(worker.process.pid):
        fresh = ops.launch(spec())
        # One job has written output for seconds that cannot be stored, and the worker cannot log that either.
        assert witness.login() in logins
        began = time.monotonic()
        held.open()
        assert ops.api.post(f"jobs/{killed}/kill").status_code == 202
        until(lambda: not any(map(shop.can_log_in, logins)), "they are dead", within=REVOKE_TIMEOUT_S)
        log.warning("full disk", dead=time.monotonic() - began)
        assert rig.gate.logins(fresh) == []
        assert worker.alive
    for job, state in ((ending, "succeeded"), (talking, "succeeded"), (killed, "killed"), (fresh, "succeeded")):
        ops.until(job)
        assert assert_one_outcome(ops, shop, job, *rig.gate.logins(job))["state"] == state
        told = {entry["type"] for entry in ops.ledger(job)}
        assert {"credential.issued", "credential.revoked", "credential.confirmed", "revocation.confirmed"} <= told
    assert_chains_hold(rig)


def test_a_locked_store_delays_every_issue_but_no_revocation(
    rig: Rig, ops: Human, shop: Shop, worker: Worker, witness: Witness, held: Latch, administrator: Administrator
) -> None:
    ending, killed = (ops.launch(spec(f"{witness.hand_over}; {script}")) for script in (held.wait, "sleep 300"))
    logins = [witness.login(), witness.login()]
    order = ops.order(spec())
    at_issue = rig.gate.hold("/v1/auth/token/roles/", method="POST", job=order["id"])
    assert ops.api.post("jobs", json=order).status_code == 201
    at_issue.until_held()
    assert worker.alive
    with lock_store(rig):
        began = time.monotonic()
        held.open()
        at_issue.release()
        administrator.kill(killed)
        until(lambda: not any(map(shop.can_log_in, logins)), "they are dead", within=REVOKE_TIMEOUT_S)
        log.warning("locked", dead=time.monotonic() - began)
        assert ops.job(order["id"])["started_at"] is None
    for job, state in ((ending, "succeeded"), (killed, "killed"), (order["id"], "succeeded")):
        ops.until(job)
        assert assert_one_outcome(ops, shop, job, *rig.gate.logins(job))["state"] == state
    assert_chains_hold(rig)
