"""The servers, started once and stopped after the last test here, each with a worker whose activities are fakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.workflows import session_scripts
from tests.workflows.servers import Bench, Lost, run_real_server, run_skipping_server


@pytest.fixture(scope="package")
async def bench() -> AsyncIterator[Bench]:
    """Time is skipped while a result is awaited.

    No guards here (this server cancels no children, and skips no more time once it had one), and no cancel of a session that may end at the
    same moment (it drops the workflow's task; a real one does not).
    """
    async with run_skipping_server() as opened, opened.worker():
        yield opened


@pytest.fixture
async def fresh() -> AsyncIterator[Bench]:
    """The same for one test alone, which may start a guard once it needs no more time skipped."""
    async with run_skipping_server() as opened, opened.worker():
        yield opened


@pytest.fixture(scope="package")
async def server() -> AsyncIterator[Bench]:
    """A real server, in real time. Its worker runs workflows inside the SDK's sandbox."""
    async with run_real_server() as opened, opened.worker(sandboxed=True):
        yield opened


@pytest.fixture(scope="package", autouse=True)
async def lost(server: Bench) -> Lost:
    """Jobs whose worker dies while they run. What tells of a death is ten real seconds of silence, so they are started before all tests."""
    jobs = {
        "plain": await server.start(session=session_scripts.vanishes),
        "revocation away": await server.start(session=session_scripts.vanishes, failing=Counter(revoke_job=2)),
        # Three times amid the workflow's tasks, then after 0, 1, 3 and 7 s; the next try comes when the job has been revoked long since.
        "answers away": await server.start(session=session_scripts.vanishes, failing=Counter(take_answers=7)),
        "killed": await server.start(session=session_scripts.vanishes),
    }
    for job in jobs.values():
        await job.wait_for_issue()
    await jobs["answers away"].answer("lead")
    await jobs["killed"].handle.signal("kill")
    return jobs
