"""Keeps Temporal's schedules as triggers.yaml says, and tells how they stand. Orders nothing, and undoes no pause that a person made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog
from anyio import to_thread

from console.concurrency.caches import SingleFlightCache
from console.temporal.client import ScheduleStatus, TemporalGateway, TemporalUnavailable
from justenough.domain.core.errors import JustEnoughError
from justenough.services.dependencies import Deps

POLL_INTERVAL_S = 2.0
"""Seconds between two looks at the configuration."""
RECONCILE_INTERVAL_S = 60.0
"""Seconds after which Temporal is looked at though the configuration has not changed: somebody may have changed things there."""
RETRY_DELAY_S = 10.0
"""Seconds after a failure."""
STATUS_TTL_S = 3.0
"""Seconds for which it is known how a schedule stands."""
STATUS_TIMEOUT_S = 2.0
"""Seconds that a list waits for Temporal."""

log = structlog.get_logger()


class ScheduleSync:
    """The installation's schedules in Temporal. One per console, on its event loop; several consoles with the same configuration do the same."""

    def __init__(self, deps: Deps, gateway: TemporalGateway) -> None:
        self._deps = deps
        self._gateway = gateway
        self._problems: dict[str, str] = {}
        self._statuses = SingleFlightCache(self._read_status, forget_after_s=STATUS_TTL_S)

    async def reconcile(self) -> None:
        """Make, change and delete what is to be; each schedule's trouble is its own. Raises TemporalUnavailable where nothing can be done."""
        wanted = (await to_thread.run_sync(self._deps.config.current)).schedules
        there = await self._gateway.schedule_names()
        for name, timed in wanted.items():
            await self._apply(name, self._gateway.put_schedule(name, timed.schedule))
        for name in sorted(there - wanted.keys()):
            await self._apply(name, self._gateway.delete_schedule(name))

    async def run(self) -> None:
        """Reconcile at start, when the configuration changes, and now and then, for as long as the console serves."""
        done, due = "", 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                digest = await to_thread.run_sync(self._config_digest)
                if digest is not None and (digest != done or loop.time() >= due):
                    await self.reconcile()
                    done, due = digest, loop.time() + (RETRY_DELAY_S if self._problems else RECONCILE_INTERVAL_S)
            except Exception as error:  # noqa: BLE001 - nobody else keeps the schedules: this goes on for as long as the console does
                log.warning("schedules cannot be brought up to date now", error=type(error).__name__, why=str(error)[:200])
                done, due = "", loop.time() + RETRY_DELAY_S
                await asyncio.sleep(RETRY_DELAY_S)
            await asyncio.sleep(POLL_INTERVAL_S)

    async def status(self, name: str) -> ScheduleStatus | None:
        """Return how a schedule stands, as of at most KEPT seconds ago; None where Temporal does not know it (yet). Raises TemporalUnavailable."""
        return await self._statuses.get(name, max_age_s=STATUS_TTL_S)

    def problem(self, name: str) -> str | None:
        """Return why a schedule is not in Temporal as triggers.yaml says."""
        return self._problems.get(name)

    def forget(self, name: str) -> None:
        """Look anew at the next question."""
        self._statuses.forget(name)

    def _config_digest(self) -> str | None:
        """Return which configuration is in force; None where the folder is broken: what it does not say then is no reason to delete anything."""
        return None if self._deps.config.alarm else self._deps.config.current().digest

    async def _read_status(self, name: str) -> ScheduleStatus | None:
        try:
            return await asyncio.wait_for(self._gateway.schedule_status(name), STATUS_TIMEOUT_S)
        except TimeoutError:
            raise TemporalUnavailable(f"Temporal does not answer within {STATUS_TIMEOUT_S:.0f} s") from None

    async def _apply(self, name: str, step: Awaitable[bool | None]) -> None:
        try:
            if await step is not False:
                log.info("a schedule is brought up to date", schedule=name)
                self.forget(name)
            self._problems.pop(name, None)
        except JustEnoughError as error:
            self._problems[name] = str(error)
            log.warning("a schedule cannot be brought up to date", schedule=name, why=str(error))
