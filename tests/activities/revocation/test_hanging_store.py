"""A store that hangs while its machine still answers: revocation does not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from activities.revocation.proof import has_standing_proof, prove
from activities.revocation.revoke import revoke_one
from activities.session.session import JobSession
from justenough.adapters.store import Store, StoreUnavailable
from justenough.domain.contracts.workflow_messages import SessionInput
from justenough.domain.core.ids import credential_id
from justenough.services.job_history import JobHistory
from tests.activities.issuing_session import start_session
from tests.activities.tcp_door import Door
from tests.activities.vault_shop import SPEC, Desk

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


async def test_a_session_revokes_although_every_other_thread_of_its_worker_hangs_in_the_store(at: Desk) -> None:
    session = start_session(at, SPEC["access"][0])
    ending = JobSession(
        at.deps,
        cast("Any", None),
        SessionInput(order=session.order, granted=(session.granted,)),
        session.verified,
        JobHistory(),
        owner="owner",
        run="run",
        notify_workflow=cast("Any", None),
    )
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
