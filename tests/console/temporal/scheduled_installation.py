"""An installation whose console keeps schedules in a real Temporal, and what tests do with its occasions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import (
    Client,
    ScheduleBackfill,
    ScheduleHandle,
    ScheduleOverlapPolicy,
)
from temporalio.service import RPCError

from console.services import job_starter
from console.services.console import Console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.ledger.events import EventType, build_event

MINUTELY = "{cron: '* * * * *', job: jobs/hello.yaml, paused: true}"
"""Paused, so that tests do not depend on the clock: what they fire, they fire by a backfill, which is what Temporal does to catch up."""
WITHIN = 60.0


@dataclass(frozen=True)
class Installation:
    """An installation of its own: its configuration folder, its console, and Temporal behind it."""

    console: Console
    settings: Settings
    temporal: Client
    folder: Path

    @property
    def prefix(self) -> str:
        return f"je-{self.settings.installation}-schedule-"

    def write_schedules(self, **schedules: str) -> None:
        """Have triggers.yaml name these schedules, and no others; the console reads it at once."""
        lines = [f"  {name}: {text}\n" for name, text in schedules.items()]
        (self.folder / "triggers.yaml").write_text("schedules:\n" + "".join(lines) if lines else "{}")
        self.console.deps.config._next_check_at = 0.0

    async def sync_schedules(self, **schedules: str) -> None:
        """Have triggers.yaml name these schedules, and no others, and reconcile Temporal with it."""
        self.write_schedules(**schedules)
        await self.console.schedule_sync.reconcile()

    def handle(self, name: str) -> ScheduleHandle:
        return self.temporal.get_schedule_handle(f"{self.prefix}{name}")

    async def describe(self, name: str) -> Any:
        return await self.handle(name).describe()

    async def backfill(self, name: str, *occasions: datetime) -> None:
        """Have Temporal start the runs of these past moments, which it did not start at the time."""
        around = timedelta(seconds=20)
        every = [ScheduleBackfill(at - around, at + around, ScheduleOverlapPolicy.ALLOW_ALL) for at in occasions]
        await self.handle(name).backfill(*every)

    async def result(self, name: str, at: datetime) -> str:
        """Return the result of an occasion. Fails if there is none."""
        which = self.temporal.get_workflow_handle(f"{self.prefix}{name}-{to_rfc3339(at)}", result_type=str)

        async def known() -> str:
            while True:
                with contextlib.suppress(RPCError):
                    found: str = await which.result()
                    return found
                await asyncio.sleep(0.05)

        return await asyncio.wait_for(known(), WITHIN)

    def jobs(self, name: str) -> list[str]:
        """The jobs that a schedule launched in this installation."""
        found = self.console.deps.store.jobs.list_launched_by(f"schedule:{name}")
        return [job.id for job in found if job.id.startswith(f"j-{self.settings.installation}-")]

    def reason(self, job: str) -> str:
        view = self.console.deps.store.jobs.get(job)
        assert view is not None
        return view.order_reason


def past_minutes(count: int) -> list[datetime]:
    """Return the last whole minutes, the earliest first."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return [now - timedelta(minutes=ago) for ago in range(count, 0, -1)]


async def until(found: Callable[[], Any]) -> Any:
    """Wait until something is found, and return it."""
    end = asyncio.get_running_loop().time() + WITHIN
    while not (seen := found()):
        assert asyncio.get_running_loop().time() < end, "it did not come"
        await asyncio.sleep(0.05)
    return seen


@asynccontextmanager
async def take_occasions(*consoles: Console) -> AsyncIterator[None]:
    """Have consoles take occasions during a block."""
    tasks = [asyncio.create_task(job_starter.run_occasions(console)) for console in consoles]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_known(describe: Callable[[], Any]) -> None:
    """Wait until Temporal knows a workflow."""
    end = asyncio.get_running_loop().time() + WITHIN
    while True:
        with contextlib.suppress(RPCError):
            await describe()
            return
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.05)


def end_job(installation: Installation, job: str) -> None:
    """End a job, as its worker would."""
    installation.console.deps.store.ledger.append(
        [build_event(EventType.JOB_ENDED, job, at=datetime.now(UTC), state="succeeded", exit_code=0, reason=None)]
    )
