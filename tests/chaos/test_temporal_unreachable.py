"""Without Temporal: other workers revoke the jobs of a worker that has lost it, it ends their processes by itself, and people reach its sessions."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from justenough.adapters.store import Store
from justenough.domain.ledger.events import EventType, build_event
from tests.chaos.administrator import Administrator
from tests.chaos.consistency import assert_one_outcome
from tests.chaos.rig import Rig, Worker
from tests.support.people import Human
from tests.support.shop import Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
log = structlog.get_logger()

LOSS_TIMEOUT_S = 180
"""Seconds on a busy machine; else: it counts as dead after ten without a word, another worker revokes at once, and within ten more it looks
whether it may go on. The job itself would run for 300.
"""


def processes_of(mark: str) -> list[int]:
    """Return the processes on this machine whose command line contains a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def launch_marked_job(ops: Human, witness: Witness) -> tuple[str, Login, str]:
    """Launch a job that keeps running; return it with its login and with the mark of its processes."""
    mark = f"cut-off-{time.monotonic_ns()}"
    return ops.launch(spec(f"{witness.hand_over}; : {mark}; sleep 300; :")), witness.login(), mark


@pytest.mark.parametrize("how", ["hanging", pytest.param("closed", marks=pytest.mark.long)])
def test_a_worker_without_temporal_loses_its_jobs_and_ends_their_processes(
    rig: Rig, ops: Human, shop: Shop, worker: Worker, witness: Witness, how: str
) -> None:
    job, login, mark = launch_marked_job(ops, witness)
    assert processes_of(mark)
    other = rig.start(JUSTENOUGH_TEMPORAL_ADDRESS=str(rig.stack.temporal))
    began = time.monotonic()
    with getattr(rig.temporal, how)():
        until(lambda: not shop.can_log_in(login), "another worker has revoked it", within=LOSS_TIMEOUT_S)
        dead = time.monotonic() - began
        until(lambda: not processes_of(mark), "its own worker has ended it", within=LOSS_TIMEOUT_S)
        log.warning("cut off", how=how, dead=dead, ended=time.monotonic() - began)
        assert worker.alive
    seen = ops.until(job)
    assert (seen["state"], seen["reason"]) == ("failed", "worker_lost")
    assert_one_outcome(ops, shop, job, login)
    other.kill()
    assert ops.until(ops.launch(spec()))["state"] == "succeeded"


@pytest.mark.long
@pytest.mark.parametrize("how", ["hanging", "closed"])
def test_the_only_worker_finds_its_job_lost_after_the_outage_and_ends_it(
    rig: Rig, ops: Human, shop: Shop, worker: Worker, witness: Witness, administrator: Administrator, how: str
) -> None:
    job, login, mark = launch_marked_job(ops, witness)
    with getattr(rig.temporal, how)():
        until(lambda: administrator.has_timed_out(job), "Temporal has given the session up")
        # No worker could have revoked the access, and nothing claims that it is revoked.
        assert shop.can_log_in(login)
        assert ops.job(job)["revocation"]["state"] == "none"
    until(lambda: not shop.can_log_in(login) and not processes_of(mark), "it hears so, revokes and ends it")
    ops.until(job)
    assert assert_one_outcome(ops, shop, job, login)["reason"] == "worker_lost"
    assert worker.alive


def add_unreadable_requests(rig: Rig, job: str, request: str) -> None:
    """Add to the ledger, as anybody who can write to it could, a withdrawal that nobody signed and one without a request."""
    forged: tuple[dict[str, Any], ...] = ({"request": request, "signed": None}, {"request": ["?"], "signed": 7})
    events = [
        build_event(EventType.WITHDRAWAL_REQUESTED, job, at=datetime.now(UTC), about=f"junk-{number}", person="x", name="x", **data)
        for number, data in enumerate(forged)
    ]
    with closing(Store(rig.stack.database_url)) as store:
        store.ledger.append(events)


def test_revocations_withdrawals_and_cancels_reach_a_session_without_temporal(
    rig: Rig, ops: Human, lead: Human, shop: Shop, worker: Worker, witness: Witness
) -> None:
    mark = f"deaf-{time.monotonic_ns()}"
    hand_over_both = f"{witness.hand_over}; PGUSER=$WRITE_USER PGPASSWORD=$WRITE_PASSWORD; {witness.hand_over}"
    write = access("refunds-db", "write", deliver={"env": {"WRITE_USER": "username", "WRITE_PASSWORD": "password"}})
    job = ops.launch(spec(f"{hand_over_both}; : {mark}; sleep 300; :", access(), write))
    request = next(item for item in ops.until(job, "awaiting_approval")["requests"] if item["resource"] == "refunds-db")
    lead.decide(request)
    reading, writing = witness.login(), witness.login()
    running = ops.until(job, "running")
    credential = next(item["id"] for item in running["credentials"] if item["resource"] == "orders-db")
    assert shop.can_log_in(reading)
    assert shop.can_log_in(writing)
    with rig.freeze("temporal"):
        add_unreadable_requests(rig, job, request["id"])
        assert ops.api.post(f"credentials/{credential}/revoke").json()["state"] == "confirmed"
        assert not shop.can_log_in(reading)
        assert shop.can_log_in(writing)
        assert lead.answer(request, "withdraw", reason="enough").status_code in {200, 202}
        until(lambda: not shop.can_log_in(writing), "what was approved is revoked", within=LOSS_TIMEOUT_S)
        assert processes_of(mark)
        cancelled = ops.api.post(f"jobs/{job}/cancel")
        assert cancelled.status_code == 202
        assert "its session is notified through the store" in cancelled.json()["note"]
        until(lambda: not processes_of(mark), "its process is gone", within=LOSS_TIMEOUT_S)
    ops.until(job)
    assert_one_outcome(ops, shop, job, reading)


def test_a_kill_without_temporal_revokes_before_it_ends_the_process(
    rig: Rig, ops: Human, shop: Shop, worker: Worker, witness: Witness
) -> None:
    job, login, mark = launch_marked_job(ops, witness)
    hold = rig.gate.hold(r"/v1/sys/leases/revoke/", method="PUT", job=job)
    with rig.freeze("temporal"), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ops.api.post, f"jobs/{job}/kill", timeout=180)
        hold.until_held()
        assert processes_of(mark), "its process waits for the revocation"
        rig.gate.release_all()
        until(lambda: not processes_of(mark), "its process is gone", within=LOSS_TIMEOUT_S)
        assert not shop.can_log_in(login)
        assert answer.result().status_code == 202
    assert ops.until(job)["state"] in {"killed", "failed"}
    assert_one_outcome(ops, shop, job, login)


def record_unsent_kill(rig: Rig, job: str) -> None:
    """Do what a console does that is asked to kill a job while Temporal is down: it cannot signal the workflow."""
    now, who = datetime.now(UTC), {"person": "e-ops", "name": "ops"}
    with closing(Store(rig.stack.database_url)) as store:
        store.claims.close(job, now)
        store.ledger.append([build_event(EventType.STOP_REQUESTED, job, at=now, about="kill/e-ops", how="kill", **who)])


def test_a_waiting_job_that_was_killed_without_temporal_is_closed_as_killed(rig: Rig, ops: Human, shop: Shop, worker: Worker) -> None:
    job = ops.launch(spec("true", access("refunds-db", "write")))
    ops.until(job, "awaiting_approval")
    record_unsent_kill(rig, job)
    ended = ops.until(job)
    assert (ended["state"], ended["reason"]) == ("killed", None)
    assert ended["requests"][0]["state"] == "withdrawn"
    assert worker.alive


def test_a_job_that_was_killed_without_temporal_before_its_session_is_closed_as_killed(
    rig: Rig, ops: Human, lead: Human, worker: Worker
) -> None:
    job = ops.launch(spec("true", access("refunds-db", "write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    record_unsent_kill(rig, job)
    lead.decide(request)
    assert ops.until(job)["state"] == "killed"
    assert worker.alive
