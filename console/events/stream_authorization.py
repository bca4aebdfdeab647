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

CHECK_EVERY = 5.0
"""Seconds between two looks at a person."""
TRUSTED = 30.0
"""Seconds that what was known of a person holds while nobody can be asked."""

End = Callable[[], None]
log = structlog.get_logger()


class Passes:
    """Everyone who listens now. One per console, on its event loop."""

    def __init__(
        self,
        person: Callable[[str], Awaitable[Person | None]],
        tiers: Callable[[], Awaitable[Tiers]],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._person, self._tiers, self._now = person, tiers, now
        self._held: dict[str, dict[End, Caller]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def held(self, caller: Caller, end: End) -> AsyncIterator[None]:
        """Call `end` once the caller may no longer do what they could when they came, unless the block is over before."""
        person = caller.person.id
        self._held.setdefault(person, {})[end] = caller
        if person not in self._tasks:
            self._tasks[person] = asyncio.create_task(self._watch(person))
        try:
            yield
        finally:
            theirs = self._held.get(person, {})
            theirs.pop(end, None)
            if not theirs:
                self._held.pop(person, None)
                if task := self._tasks.pop(person, None):
                    task.cancel()

    async def _watch(self, person: str) -> None:
        known = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                found = await self._person(person)
                roles = Caller(person=found, tiers=await self._tiers(), expires=0.0).roles if found else frozenset()
            except RetryLater as error:
                log.warning("nobody can tell whether a listener still may", person=person, error=str(error))
                if time.monotonic() - known > TRUSTED:
                    self._end(person, None, frozenset())
                continue
            known = time.monotonic()
            self._end(person, found, roles)

    def _end(self, person: str, found: Person | None, roles: frozenset[Role]) -> None:
        for end, caller in [*self._held.get(person, {}).items()]:
            if self._now() >= caller.expires or caller.person != found or caller.roles != roles:
                end()
