"""The servers, once per session, each with a worker whose activities are fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.workflows.servers import Bench, real, skipping


@pytest.fixture(scope="session")
async def bench() -> AsyncIterator[Bench]:
    """Time is skipped while a result is awaited.

    No guards here (this server cancels no children, and skips no more time once it had one), and no cancel of a session that may end at the
    same moment (it drops the workflow's task; a real one does not).
    """
    async with skipping() as opened, opened.worker():
        yield opened


@pytest.fixture
async def fresh() -> AsyncIterator[Bench]:
    """The same for one test alone, which may start a guard once it needs no more time skipped."""
    async with skipping() as opened, opened.worker():
        yield opened


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Bench]:
    """A real server, in real time."""
    async with real() as opened, opened.worker():
        yield opened
