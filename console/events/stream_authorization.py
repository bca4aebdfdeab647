"""Checks repeatedly whether listeners may still listen, once per person for all their streams.

A stream ends if its token expires, if its person is disabled or their groups change, if approvals.yaml gives their groups other roles, or if
this could not be checked for longer than MAX_UNCHECKED_S. Its client then reconnects and is authenticated again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import structlog

from console.auth.authorization import Caller
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.core.errors import RetryLater

CHECK_INTERVAL_S = 5.0
MAX_UNCHECKED_S = 30.0
"""How long the last known rights of a person remain valid while they cannot be checked, as while Vault is unreachable."""

EndStream = Callable[[], None]
log = structlog.get_logger()


class StreamAuthorization:
    """The current listeners. One per console, on its event loop."""

    def __init__(
        self, person: Callable[[str], Awaitable[Person | None]], tiers: Callable[[], Awaitable[Tiers]], *, now: Callable[[], datetime]
    ) -> None:
        self._person, self._tiers, self._now = person, tiers, now
        self._callers: dict[str, dict[EndStream, Caller]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def count_streams(self, person: str) -> int:
        """Return how many streams of a person (entity id) are open."""
        return len(self._callers.get(person, {}))

    @asynccontextmanager
    async def admit(self, caller: Caller, end_stream: EndStream) -> AsyncIterator[None]:
        """Call `end_stream` as soon as the caller's rights differ from those at the start, unless the block ends first."""
        person = caller.person.id
        self._callers.setdefault(person, {})[end_stream] = caller
        if person not in self._tasks:
            self._tasks[person] = asyncio.create_task(self._watch_person(person))
        try:
            yield
        finally:
            streams = self._callers.get(person, {})
            streams.pop(end_stream, None)
            if not streams:
                self._callers.pop(person, None)
                if task := self._tasks.pop(person, None):
                    task.cancel()

    async def _watch_person(self, person: str) -> None:
        checked_at = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                current = await self._person(person)
                roles = Caller(person=current, tiers=await self._tiers(), expires=0.0).roles if current else frozenset()
            except Exception as error:  # noqa: BLE001 - without this task, no stream of the person would ever end
                why = str(error) if isinstance(error, RetryLater) else type(error).__name__
                log.warning("a listener's rights cannot be checked now", person=person, error=why)
                if time.monotonic() - checked_at <= MAX_UNCHECKED_S:
                    continue
                current, roles = None, frozenset()
            else:
                checked_at = time.monotonic()
            for end_stream, caller in [*self._callers.get(person, {}).items()]:
                if self._now().timestamp() >= caller.expires or caller.person != current or caller.roles != roles:
                    end_stream()
