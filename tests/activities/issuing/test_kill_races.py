"""A job is issued credentials while somebody kills it, many times, each time at another moment: afterwards no credential works."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from activities.issuing.issuer import Issuer
from activities.issuing.results import AccessClosed, IssuedCredential
from activities.revocation import revoke
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.revocation_calls import revoke_by_session
from tests.activities.vault_shop import ACME, Desk, Shop, Someone, open_desk
from tests.support.claims import claim_job
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

AT_ONCE = 4
MAX_KILL_DELAY_S = 0.1
"""Seconds after which the kill comes, at the latest: about as long as two issues take. The moments of all races divide them evenly, less than
two milliseconds apart.
"""
SPEC: dict[str, Any] = {
    "name": "racer",
    "task": "Race",
    "environment": "prod",
    "data_scope": ACME,
    "params": {"ticket": "4711"},
    "run": {"command": ["true"]},
    "access": [],
    "beyond": "policy",
}
ACCESS = Access(resource="orders-db", action=Action.READ, ttl=300, reason="a race", at="request")


@pytest.fixture
def at(shop: Shop, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(shop, tmp_path) as made:
        yield made


def race_kill(at: Desk, launcher: Someone, moment: float) -> tuple[str, int]:
    """Race once: a session issues until its access is closed; a kill from another worker comes in between."""
    deps = at.deps
    job = new_job_id("dev", now=deps.now())
    order = launcher.order(job, now=deps.now(), spec=SPEC)
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder), verified
    deps.store.ledger.append(order_events(deps, order, verified))
    assert claim_job(deps.store, job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, order, verified, read_job_history(deps.store.ledger, job), owner="owner")
    kill = threading.Timer(moment, lambda: revoke.revoke(deps, job, by="person", settled=False, why="killed"))
    kill.start()
    came = 0
    try:
        while isinstance(issuer.access(ACCESS), IssuedCredential):
            came += 1
    except AccessClosed:
        pass
    kill.join()
    ends = partial(revoke.revoke, deps, job, by="session", settled=issuer.settled, known=issuer.holdings.alive, why="killed")
    # Vault itself ends the leases of a token that was revoked, a moment later, and knows one for a few milliseconds after it has ended it (seen).
    until(lambda: ends().confirmed, f"{job} is confirmed")
    return job, came


@pytest.mark.parametrize("races", [60, pytest.param(500, marks=pytest.mark.long)])
def test_a_kill_during_an_issue_leaves_no_live_credential_whatever_the_timing(at: Desk, shop: Shop, races: int) -> None:
    launcher, earlier = shop.newcomer(f"racer-{races}", "ops"), at.job()
    # A credential that is killed before anybody has seen that the target shows users stays in doubt.
    assert revoke_by_session(at, earlier, at.issue(earlier)).confirmed
    with ThreadPoolExecutor(AT_ONCE) as pool:
        raced_jobs = list(pool.map(lambda number: race_kill(at, launcher, MAX_KILL_DELAY_S * number / races), range(races)))
    jobs = {job for job, _ in raced_jobs}
    with psycopg.connect(shop.superuser) as connection:
        users = [name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()]
    assert [name for name in users for job in jobs if job in name] == []
    assert [job for job in jobs if at.deps.vault.prefix_accessors(job)] == []
    assert {item.state for item in at.deps.store.credentials.list(live=True).items} == set()
    # The kill came before the first issue, and after one or several: the moments were what they were meant to be.
    assert len(Counter(came for _, came in raced_jobs)) >= 2
