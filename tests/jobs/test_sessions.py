"""A session renews its leases within the grant, ends if its claim is closed, and survives a store that hangs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from justenough.adapters.store import Store
from tests.chaos.job_latch import hold_jobs
from tests.support.people import Human
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers


@contextmanager
def shorten_leases(shop: Shop) -> Iterator[None]:
    """Let Vault issue logins to the orders for six seconds at a time, for a block."""
    role = "database/roles/orders-read-acme"
    with shop.admin() as vault:
        before = vault.get(role).raise_for_status().json()["data"]
        vault.post(role, json={**before, "default_ttl": 6}).raise_for_status()
        try:
            yield
        finally:
            vault.post(role, json=before).raise_for_status()


def test_a_lease_is_renewed_within_the_grant_and_never_past_it(ops: Human, shop: Shop, witness: Witness) -> None:
    with shorten_leases(shop):
        job = ops.launch(spec(f"{witness.hand_over}; sleep 300", access(ttl="14s")))
        login = witness.login()
    issued = datetime.fromisoformat(ops.job(job)["credentials"][0]["issued_at"])
    until(lambda: (datetime.now(UTC) - issued).total_seconds() > 8, "eight seconds have passed")
    assert shop.can_log_in(login)
    assert "credential.renewed" in {entry["type"] for entry in ops.ledger(job)}
    until(lambda: ops.job(job)["credentials"][0]["state"] == "confirmed", "the grant's end")
    lived = datetime.fromisoformat(ops.job(job)["credentials"][0]["confirmed_at"]) - issued
    assert 13 < lived.total_seconds() < 120
    assert not shop.can_log_in(login)
    assert ops.job(job)["state"] == "running"
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    shop.assert_dead(ops.until(job), login)


def test_a_session_whose_claim_is_closed_ends_its_process(ops: Human, shop: Shop, witness: Witness) -> None:
    job = ops.launch(spec(f"trap '' TERM; {witness.hand_over}; while :; do sleep 1; done"))
    login = witness.login()
    rows = Store(shop.stack.database_url)
    rows.claims.close(job, datetime.now(UTC))
    rows.close()
    seen = ops.until(job)
    assert (seen["state"], seen["reason"], seen["exit_code"]) == ("failed", "access_cut", 137)
    shop.assert_dead(seen, login)


def test_a_store_that_hangs_ends_no_healthy_job(ops: Human, shop: Shop, witness: Witness) -> None:
    with hold_jobs() as held:
        job = ops.launch(spec(f"{witness.hand_over}; {held.wait}"))
        login = witness.login()
        hang_store(shop)
        held.open()
        seen = ops.until(job)
    assert (seen["state"], seen["reason"]) == ("succeeded", None)
    shop.assert_dead(seen, login)


def hang_store(shop: Shop) -> None:
    """Hold the store's write lock for longer than the heartbeat timeout."""
    file = shop.stack.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 17, "the store has hung")
        connection.execute("ROLLBACK")
    connection.close()
