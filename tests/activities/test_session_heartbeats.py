"""A session sends heartbeats from its first step on: the store may take longer than Temporal waits for a silent worker."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.testing import ActivityEnvironment

from activities.process.sandbox import Sandbox
from activities.session_activity import SessionActivities
from justenough.domain.core.ids import new_job_id
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers


async def test_a_session_that_waits_for_the_store_sends_heartbeats_before_it_begins(at: Desk, tmp_path: Path) -> None:
    beats = asyncio.Semaphore(0)
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=new_job_id("dev", now=at.deps.now()))
    environment.on_heartbeat = lambda *_: beats.release()
    sessions = SessionActivities(at.deps, Sandbox.probe(at.deps.settings))
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        # Its first write, of the refused argument, waits for this writer.
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
