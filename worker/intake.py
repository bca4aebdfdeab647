"""Lets a worker take tasks from Temporal only while it can carry them out. What it has begun continues.

A worker that does not reach Vault cannot even read what other workers encrypted. Each task that it took would fail after seconds, although
another worker might have carried it out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog
from temporalio.worker import CustomSlotSupplier, SlotMarkUsedContext, SlotPermit, SlotReleaseContext, SlotReserveContext

from activities.support.async_tools import wait_up_to
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.services.dependencies import Deps

CHECK_INTERVAL, RECHECK_INTERVAL = timedelta(seconds=5), timedelta(seconds=1)
"""Time between two checks: while the worker takes all tasks, and while it does not."""
VAULT_AWAY = "worker takes no tasks until Vault answers"
STORE_AWAY = "worker takes no jobs until the store answers"
NO_CONFIGURATION = "worker only revokes: it takes no jobs without a valid configuration"
log = structlog.get_logger()


class Slots(CustomSlotSupplier):
    """A number of slots for tasks, which the SDK can reserve only while `is_open()`. Thread-safe: the SDK calls it from threads of its own."""

    def __init__(self, number: int, is_open: Callable[[], bool]) -> None:
        self._number, self._is_open = number, is_open
        self._reserved = 0
        self._lock = threading.Lock()
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()

    def try_again(self) -> None:
        """Let whoever waits for a slot try again: one was released, or `is_open` has changed."""
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(self._changed.set)

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a slot and reserve it, before a poll."""
        while True:
            self._changed.clear()
            if permit := self.try_reserve_slot(ctx):
                return permit
            await self._changed.wait()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - the SDK's signature
        with self._lock:
            if self._reserved >= self._number or not self._is_open():
                return None
            self._reserved += 1
            return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Change nothing: a slot counts from its reservation on."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002 - the SDK's signature
        """Release a slot after its task, or because no task came."""
        with self._lock:
            self._reserved -= 1
        self.try_again()


class Intake:
    """Checks whether anything keeps this worker from its tasks, and gives the SDK slots accordingly."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._obstacle: str | None = None
        self._slots: list[Slots] = []

    def reaches_vault(self) -> bool:
        """Whether Vault answered the latest check."""
        return self._obstacle != VAULT_AWAY

    def slots(self, number: int, *, for_sessions: bool) -> Slots:
        """Return slots that can be reserved while Vault answers. Slots for sessions also need the store and a valid configuration: without these,
        the worker still runs workflows, which kill jobs, and revokes what jobs held.
        """
        slots = Slots(number, (lambda: self._obstacle is None) if for_sessions else self.reaches_vault)
        self._slots.append(slots)
        return slots

    async def watch(self, ended: asyncio.Event) -> None:
        """Check again and again until the event is set."""
        while not ended.is_set():
            await wait_up_to(CHECK_INTERVAL if self._obstacle is None else RECHECK_INTERVAL, ended)
            await self.check()

    async def check(self) -> None:
        """Check once; log what has changed."""
        before = self._obstacle
        try:
            self._obstacle, why = await asyncio.to_thread(self._find_obstacle)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the check, a worker that takes no tasks revokes nothing
            log.warning("worker takes all tasks: the check of what it reaches failed", error=type(error).__name__)
            self._obstacle, why = None, None
        if self._obstacle == before:
            return
        for slots in self._slots:
            slots.try_again()
        if self._obstacle is None:
            log.info("worker ready")
        else:
            log.error(self._obstacle, why=why)

    def _find_obstacle(self) -> tuple[str | None, str | None]:
        """Return what keeps this worker from tasks, and why; None if nothing does."""
        if why := _why_no_answer(self._deps.vault.require_audited_answer):
            return VAULT_AWAY, why
        if why := _why_no_answer(self._deps.store.ping):
            return STORE_AWAY, why
        return None if self._deps.config.digest_in_force else NO_CONFIGURATION, self._deps.config.alarm


def _why_no_answer(ask: Callable[[], None]) -> str | None:
    """Return why a server does not answer now; None if it does."""
    try:
        ask()
    except RetryLater as error:
        return str(error)
    except GiveUp:
        pass  # A refusal is an answer, too. The tasks report it.
    return None
