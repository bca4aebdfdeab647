"""A session's first steps: it sends heartbeats from the first one on, and waits for Vault without claiming the job."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Iterator, MutableMapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.testing import ActivityEnvironment

from activities import session_activity
from activities.process.sandbox import Sandbox
from activities.session_activity import SessionActivities
from justenough.adapters.vault import Vault
from justenough.domain.contracts.workflow_messages import SessionInput
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from tests.activities.tcp_door import Door
from tests.activities.vault_shop import SPEC, Desk

pytestmark = pytest.mark.servers


def session_of(job: str) -> ActivityEnvironment:
    """Return an activity environment like that of a session of the job's workflow."""
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=job)
    return environment


@pytest.fixture
def door(at: Desk) -> Iterator[Door]:
    """A door in front of Vault, which a test can close."""
    with closing(Door(urlsplit(at.deps.vault.address).port or 80)) as door:
        yield door


@pytest.fixture
def sessions(at: Desk, door: Door) -> Iterator[SessionActivities]:
    """The sessions of a worker that reaches Vault through the door."""
    with closing(Vault(f"http://127.0.0.1:{door.port}")) as vault:
        vault.login_from_file(at.deps.settings.worker_approle_file)
        yield SessionActivities(replace(at.deps, vault=vault), Sandbox.probe(at.deps.settings))


def order_of(at: Desk, *, group: str = "ops") -> SessionInput:
    """Return an order that a person of this group has signed."""
    launcher = at.shop.newcomer(f"launcher-{secrets.token_hex(4)}", group)
    order = launcher.order(new_job_id("dev", now=at.deps.now()), now=at.deps.now(), spec={**SPEC, "access": []})
    return SessionInput(order=order)


async def until_waiting(logs: list[MutableMapping[str, Any]]) -> None:
    """Wait until a session has logged that it could not verify its order."""
    async with asyncio.timeout(60):
        while not any(entry["event"] == "order not verified yet" for entry in logs):  # noqa: ASYNC110 - nothing else reports it
            await asyncio.sleep(0.05)


async def test_a_session_that_waits_for_the_store_sends_heartbeats_before_it_begins(at: Desk, tmp_path: Path) -> None:
    beats = asyncio.Semaphore(0)
    environment = session_of(new_job_id("dev", now=at.deps.now()))
    environment.on_heartbeat = lambda *_: beats.release()
    sessions = SessionActivities(at.deps, Sandbox.probe(at.deps.settings))
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        # The session's first write, which records the refused argument, waits for this writer.
        other.execute("BEGIN IMMEDIATE")
        session = asyncio.create_task(environment.run(sessions.receive, RawValue(Payload())))
        try:
            async with asyncio.timeout(20):
                for _ in range(2):
                    await beats.acquire()
        finally:
            other.execute("ROLLBACK")
            result = await session
    assert result.reason == "refused: the argument is not an order"


async def test_a_job_whose_order_cannot_be_verified_for_a_while_is_left_unclaimed_for_another_worker(
    at: Desk, sessions: SessionActivities, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_activity, "PATIENCE_S", 0.0)
    order = order_of(at)
    with door.closed():
        result = await session_of(order.order.job).run(sessions.run_session, order)
    assert (result.no_place, result.outcome, result.reason) == (True, JobState.FAILED, "servers_unavailable")
    assert at.deps.store.claims.get(order.order.job) is None


async def test_a_session_continues_once_vault_answers(
    at: Desk, sessions: SessionActivities, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_activity, "PATIENCE_S", 600.0)
    order = order_of(at, group="support-leads")
    with capture_logs() as logs:
        with door.closed():
            session = asyncio.create_task(session_of(order.order.job).run(sessions.run_session, order))
            await until_waiting(logs)
        result = await session
    assert not result.no_place
    assert "is in none of the groups that may launch" in str(result.reason)


async def test_a_job_that_is_stopped_does_not_wait_for_vault(
    at: Desk, sessions: SessionActivities, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_activity, "PATIENCE_S", 600.0)
    order = order_of(at)
    environment = session_of(order.order.job)
    with capture_logs() as logs, door.closed():
        session = asyncio.create_task(environment.run(sessions.run_session, order))
        await until_waiting(logs)
        environment.cancel()
        async with asyncio.timeout(60):
            assert (await session).no_place
