"""Whether those who listen still may: looked at again and again, once for each person however many streams they have open.

A stream ends when its token does, when its person's groups are others or the person is disabled, when their groups mean something else
(approvals.yaml), and when nobody can tell any more because Vault is away for longer than TRUSTED. Its client comes back and is asked anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from console.auth.authorization import Caller, Role
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.core.errors import RetryLater

CHECK_INTERVAL_S = 5.0
"""Seconds between two looks at a person."""
MAX_UNCHECKED_S = 30.0
"""Seconds that what was known of a person holds while nobody can be asked."""

EndStream = Callable[[], None]
log = structlog.get_logger()


class StreamAuthorization:
    """Everyone who listens now. One per console, on its event loop."""

    def __init__(
        self,
        person: Callable[[str], Awaitable[Person | None]],
        tiers: Callable[[], Awaitable[Tiers]],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._person, self._tiers, self._now = person, tiers, now
        self._callers: dict[str, dict[EndStream, Caller]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def admit(self, caller: Caller, end_stream: EndStream) -> AsyncIterator[None]:
        """Call `end_stream` once the caller may no longer do what they could when they came, unless the block is over before."""
        person = caller.person.id
        self._callers.setdefault(person, {})[end_stream] = caller
        if person not in self._tasks:
            self._tasks[person] = asyncio.create_task(self._watch_person(person))
        try:
            yield
        finally:
            theirs = self._callers.get(person, {})
            theirs.pop(end_stream, None)
            if not theirs:
                self._callers.pop(person, None)
                if task := self._tasks.pop(person, None):
                    task.cancel()

    async def _watch_person(self, person: str) -> None:
        known = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                found = await self._person(person)
                roles = Caller(person=found, tiers=await self._tiers(), expires=0.0).roles if found else frozenset()
            except RetryLater as error:
                log.warning("nobody can tell whether a listener still may", person=person, error=str(error))
                if time.monotonic() - known > MAX_UNCHECKED_S:
                    self._end_unauthorized(person, None, frozenset())
                continue
            known = time.monotonic()
            self._end_unauthorized(person, found, roles)

    def _end_unauthorized(self, person: str, found: Person | None, roles: frozenset[Role]) -> None:
        for end, caller in [*self._callers.get(person, {}).items()]:
            if self._now() >= caller.expires or caller.person != found or caller.roles != roles:
                end()
