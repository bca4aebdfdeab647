"""A worker with one session slot and a short drain, and a Vault with short leases, on a separate stack."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from justenough.adapters.store import Store
from tests.chaos.job_latch import latch
from tests.conftest import EXAMPLE
from tests.support.people import Human, logged_in
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until
from worker.stack import Stack, running_stack

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def small() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="je-small-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUSTENOUGH_MAX_SESSIONS", "1")
        config = Path(folder) / "shop"
        shutil.copytree(EXAMPLE, config)
        catalog = config / "catalog.yaml"
        catalog.write_text(re.sub(r"default_ttl: \w+", "default_ttl: 6s", catalog.read_text()))
        with running_stack(Path(folder) / "home", config, drain=1) as stack:
            yield stack


@pytest.fixture(scope="module")
def store(small: Stack) -> Iterator[Shop]:
    with Shop.opened(small) as opened:
        yield opened


@pytest.fixture(scope="module")
def someone(small: Stack) -> Iterator[Human]:
    with logged_in(small, "ops") as human:
        yield human


def test_a_job_can_be_killed_while_other_jobs_use_every_slot(someone: Human, store: Shop, witness: Witness) -> None:
    job = someone.launch(spec(f"{witness.hand_over}; sleep 300"))
    login = witness.login()
    waiting = someone.launch(spec("true"))
    assert someone.api.post(f"jobs/{job}/kill").status_code == 202
    until(lambda: not store.opens_for(login), "the killed job's login is refused")
    seen = someone.until(job)
    assert seen["state"] == "killed"
    store.assert_dead(seen, login)
    assert someone.until(waiting)["state"] == "succeeded"


def test_a_lease_is_renewed_within_the_grant_and_never_past_it(someone: Human, store: Shop, witness: Witness) -> None:
    job = someone.launch(spec(f"{witness.hand_over}; sleep 300", access(ttl="14s")))
    login = witness.login()
    issued = datetime.fromisoformat(someone.job(job)["credentials"][0]["issued_at"])
    until(lambda: (datetime.now(UTC) - issued).total_seconds() > 8, "eight seconds have passed")
    assert store.opens_for(login)
    assert "credential.renewed" in {entry["type"] for entry in someone.ledger(job)}
    until(lambda: someone.job(job)["credentials"][0]["state"] == "confirmed", "the grant's end")
    lived = datetime.fromisoformat(someone.job(job)["credentials"][0]["confirmed_at"]) - issued
    assert 13 < lived.total_seconds() < 120
    assert not store.opens_for(login)
    assert someone.job(job)["state"] == "running"
    assert someone.api.post(f"jobs/{job}/kill").status_code == 202
    store.assert_dead(someone.until(job), login)


def test_a_session_whose_claim_is_closed_ends_its_process(someone: Human, store: Shop, witness: Witness) -> None:
    job = someone.launch(spec(f"trap '' TERM; {witness.hand_over}; while :; do sleep 1; done"))
    login = witness.login()
    rows = Store(store.stack.database_url)
    rows.claims.close(job, datetime.now(UTC))
    rows.close()
    seen = someone.until(job)
    assert (seen["state"], seen["reason"], seen["exit_code"]) == ("failed", "access_cut", 137)
    store.assert_dead(seen, login)


def test_a_store_that_hangs_ends_no_healthy_job(someone: Human, store: Shop, witness: Witness) -> None:
    with latch() as held:
        job = someone.launch(spec(f"{witness.hand_over}; {held.wait}"))
        login = witness.login()
        let_the_store_hang(store)
        held.open()
        seen = someone.until(job)
    assert (seen["state"], seen["reason"]) == ("succeeded", None)
    store.assert_dead(seen, login)


def let_the_store_hang(store: Shop) -> None:
    """Hold the store's write lock for longer than the heartbeat timeout."""
    file = store.stack.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 17, "the store has hung")
        connection.execute("ROLLBACK")
    connection.close()


def test_a_stopping_worker_ends_and_revokes_its_sessions(someone: Human, store: Shop, witness: Witness) -> None:
    job = someone.launch(spec(f"{witness.hand_over}; sleep 300"))
    login = witness.login()
    worker = store.pid_of("worker")
    connection = store.connect(login)
    os.kill(worker, signal.SIGTERM)
    seen = someone.until(job)
    assert (seen["state"], seen["reason"]) == ("failed", "worker_stopped")
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    store.assert_dead(seen, login)
    steps = [entry for entry in someone.ledger(job) if entry["type"] == "revocation.confirmed"]
    assert [entry["data"]["by"] for entry in steps] == ["session"]
