"""Keeps Temporal's schedules in line with triggers.yaml, except that a person may pause them, and reads their status. Orders no jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog
from anyio import to_thread

from console.concurrency.caches import SingleFlightCache
from console.concurrency.loops import repeat
from console.temporal.client import ScheduleStatus, TemporalGateway, TemporalUnavailable
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType
from justenough.services.dependencies import Deps

POLL_INTERVAL_S = 2.0
"""Seconds between two checks of the configuration."""
RECONCILE_INTERVAL_S = 60.0
"""Seconds between two comparisons with Temporal if the configuration has not changed: somebody may have changed schedules in Temporal."""
RETRY_DELAY_S = 10.0
STATUS_TTL_S = 3.0
STATUS_TIMEOUT_S = 2.0
CHANGED_BY_OTHERS = (
    "a schedule in Temporal had been changed and was restored; if this repeats, another console has a different triggers.yaml"
)

log = structlog.get_logger()


class ScheduleSync:
    """The installation's schedules in Temporal. One per console, on its event loop; consoles with the same configuration may run it concurrently."""

    def __init__(self, deps: Deps, gateway: TemporalGateway) -> None:
        self._deps = deps
        self._gateway = gateway
        self._problems: dict[str, str] = {}
        self._in_temporal: str | None = None
        """The digest of the newest configuration whose schedules are all in Temporal."""
        self._statuses = SingleFlightCache(self._read_status, forget_after_s=STATUS_TTL_S)

    async def reconcile(self) -> None:
        """Create, update and delete schedules as configured. A failure with one schedule does not stop the others.

        Raises TemporalUnavailable.
        """
        config = await to_thread.run_sync(self._deps.config.current)
        configured, existing = config.schedules, await self._gateway.schedule_names()
        restores = config.digest == self._in_temporal
        for name in self._problems.keys() - configured.keys() - existing:
            del self._problems[name]
        for name, timed in configured.items():
            # Temporal may have lost it, or the file may have lacked it for a moment.
            pause = await to_thread.run_sync(self.recorded_pause, name)
            await self._apply(name, self._gateway.put_schedule(name, timed.schedule, pause=pause), restores=restores)
        for name in sorted(existing - configured.keys()):
            await self._apply(name, self._gateway.delete_schedule(name), restores=restores)
        self._in_temporal = None if self._problems else config.digest

    async def run(self) -> None:
        """Reconcile at start, when the configuration changes, and every RECONCILE_INTERVAL_S, until cancelled."""
        done, due = "", 0.0
        loop, config = asyncio.get_running_loop(), self._deps.config

        async def reconcile_if_due() -> None:
            nonlocal done, due
            # An invalid configuration must not delete schedules.
            digest = await to_thread.run_sync(lambda: None if config.alarm else config.current().digest)
            if digest is not None and (digest != done or loop.time() >= due):
                done, due = digest, loop.time() + RETRY_DELAY_S
                await self.reconcile()
                due = loop.time() + (RETRY_DELAY_S if self._problems else RECONCILE_INTERVAL_S)

        await repeat(reconcile_if_due, every_s=POLL_INTERVAL_S, failure="schedules cannot be updated now")

    def recorded_pause(self, name: str) -> str | None:
        """Return who paused a schedule, and why, if nobody has unpaused it since. Blocking. Raises RetryLater."""
        kinds = EventType.SCHEDULE_PAUSED, EventType.SCHEDULE_UNPAUSED
        entries = self._deps.store.ledger.entries_about(UNATTRIBUTED_CHAIN, kinds, name)
        if not entries or entries[-1].type != EventType.SCHEDULE_PAUSED.value:
            return None
        return f"{entries[-1].data['name']}: {entries[-1].data['reason']}"

    async def status(self, name: str) -> ScheduleStatus | None:
        """Return a schedule's status, read at most STATUS_TTL_S ago; None if Temporal does not know it (yet). Raises TemporalUnavailable."""
        return await self._statuses.get(name, max_age_s=STATUS_TTL_S)

    def problem(self, name: str) -> str | None:
        """Return why a schedule in Temporal differs from triggers.yaml; None if it does not."""
        return self._problems.get(name)

    def forget(self, name: str) -> None:
        """Drop the cached status; the next call reads it again."""
        self._statuses.forget(name)

    async def _read_status(self, name: str) -> ScheduleStatus | None:
        try:
            return await asyncio.wait_for(self._gateway.schedule_status(name), STATUS_TIMEOUT_S)
        except TimeoutError:
            raise TemporalUnavailable(f"Temporal did not answer within {STATUS_TIMEOUT_S:.0f} s") from None

    async def _apply(self, name: str, step: Awaitable[bool | None], *, restores: bool) -> None:
        try:
            if await step is not False:
                if restores:
                    log.warning(CHANGED_BY_OTHERS, schedule=name)
                else:
                    log.info("a schedule was updated", schedule=name)
                self.forget(name)
            self._problems.pop(name, None)
        except JustEnoughError as error:
            self._problems[name] = str(error)
            log.warning("a schedule cannot be updated", schedule=name, why=str(error))
