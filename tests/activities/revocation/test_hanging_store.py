"""A store that hangs while its machine still answers: revocation does not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, NoReturn, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from activities.process.process import JobProcess
from activities.revocation.proof import has_standing_proof, prove
from activities.revocation.revoke import RevocationResult, revoke_one
from activities.session.session import JobSession, Stop
from justenough.adapters.store import Store, StoreUnavailable
from justenough.adapters.store.session_claims import SessionClaim
from justenough.domain.contracts.workflow_messages import SessionInput
from justenough.domain.core.ids import credential_id
from justenough.domain.jobs.states import JobState
from justenough.services.job_history import JobHistory
from tests.activities.issuing_session import Session, start_session
from tests.activities.revocation_calls import revoke_by_session, revoke_from_outside
from tests.activities.tcp_door import Door
from tests.activities.vault_shop import SPEC, Desk
from tests.support.wait import until

pytestmark = pytest.mark.servers


@pytest.fixture
def postgres_door(at: Desk) -> Iterator[tuple[Door, str]]:
    """A door in front of an empty database, and the database's URL through it."""
    url, name = make_url(at.shop.superuser), f"store_{uuid4().hex}"
    assert url.port is not None
    door = Door(url.port)
    with psycopg.connect(at.shop.superuser, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name)))
        yield door, url.set(port=door.port, database=name).render_as_string(hide_password=False)
        door.close()
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_nothing_that_shares_threads_with_revocations_waits_for_a_store_that_hangs(at: Desk, postgres_door: tuple[Door, str]) -> None:
    door, url = postgres_door
    with closing(Store(url)) as store, ThreadPoolExecutor(3) as pool:
        store.migrate()
        job, deps = at.job(), replace(at.deps, store=store)
        assert store.jobs.get(job) is None
        door.hang()
        proven, checked, ended = (
            pool.submit(has_standing_proof, deps, job),
            pool.submit(prove, deps, job),
            pool.submit(revoke_one, deps, job, credential_id(job, 1), by="person", why="a test"),
        )
        try:
            assert proven.result(timeout=60) is False, "a revocation goes on without a proof"
            for asked in (checked, ended):
                with pytest.raises(StoreUnavailable, match="did not answer within 2 s"):
                    asked.result(timeout=60)
        finally:
            door.open()


@pytest.mark.parametrize("revoke", [revoke_by_session, revoke_from_outside])
def test_a_slow_store_neither_delays_a_revocation_nor_keeps_it_from_being_confirmed(
    at: Desk, monkeypatch: pytest.MonkeyPatch, revoke: Callable[[Desk, str], RevocationResult]
) -> None:
    job = at.job()
    held, read = at.issue(job), at.deps.store.claims.get

    def read_late(job: str) -> SessionClaim | None:
        until(lambda: not at.shop.can_log_in(held), "the credential ends without the store")
        return read(job)

    with monkeypatch.context() as patched:
        patched.setattr(at.deps.store.claims, "get", read_late)
        result = revoke(at, job)
    assert result.failures == ()
    assert result.confirmed or result.second_check_in
    claim = read(job)
    assert claim is not None
    assert not claim.open


def session_of(at: Desk, *, bundle: str | None = None) -> tuple[JobSession, Session]:
    """Return a job's session that has no process yet, and what it may issue. `bundle`: the digest of the job's files."""
    session = start_session(at, SPEC["access"][0])
    order = SessionInput(order=session.order.model_copy(update={"bundle": bundle}), granted=(session.granted,))
    how: dict[str, Any] = {"owner": "owner", "run": "run", "notify_workflow": None}
    return JobSession(at.deps, cast("Any", None), order, session.verified, JobHistory(), **how), session


class PatientProcess:
    """A process that ends only when it is asked to."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    async def wait(self) -> int:
        await self._asked.wait()
        return 0

    async def finish(self, grace: float) -> int:
        assert grace > 0
        self._asked.set()
        return 0


@pytest.mark.parametrize("is_hanging", [True, False])
async def test_a_cancelled_job_is_asked_to_end_although_the_store_does_not_answer(
    at: Desk, monkeypatch: pytest.MonkeyPatch, *, is_hanging: bool
) -> None:
    released = threading.Event()

    def find_no_store(_job: str) -> NoReturn:
        released.wait(180 if is_hanging else 0)
        raise StoreUnavailable("failing over")

    monkeypatch.setattr(at.deps.store.claims, "get", find_no_store)
    session, _ = session_of(at)
    session.stop(Stop.CANCEL)
    try:
        async with asyncio.timeout(60):
            ended = await session._wait_for_process(cast("JobProcess", PatientProcess()))
    finally:
        released.set()
    assert (ended.outcome, ended.exit_code) == (JobState.CANCELLED, 0)


async def test_a_session_revokes_although_every_other_thread_of_its_worker_hangs_in_the_store(at: Desk) -> None:
    ending, session = session_of(at)
    issued, released, threads = ending._issuer.issue(session.granted), threading.Event(), ThreadPoolExecutor(2)
    asyncio.get_running_loop().set_default_executor(threads)
    hanging = [threads.submit(released.wait, 180) for _ in range(2)]
    try:
        async with asyncio.timeout(60):
            assert (await ending._revoke("its process ended", settled=True)).confirmed
        assert not any(item.done() for item in hanging)
    finally:
        released.set()
    assert issued.credential.user is not None
    assert at.shop.users_of(issued.credential.user) == []
