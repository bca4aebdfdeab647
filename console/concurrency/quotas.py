"""Each person's share of the console: a person who has used theirs up is refused with a time to retry, and everybody else is served.

Calls, streams and sessions count for the person. Jobs and their requests count for their launcher: a trigger or a schedule has its own
share. Stored things are counted in the store; calls are counted in this process, so each console counts its own calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from anyio import to_thread

from console.concurrency.loops import repeat
from justenough.domain.core.errors import OverQuota
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder

WAITING_CALLS_PER_TURN = 4
"""For each call of a person that is served at once, this many calls may wait."""
REFUSAL_DELAY_S = 1.0
"""Seconds before a call is refused: a person who calls too often then gets at most one refusal per connection at a time."""
RETRY_AFTER_S = 60.0
"""Seconds after which there may be room again for jobs, requests, sessions, streams and bundles, which end by themselves or by a person."""
UNUSED_BUNDLE_LIFETIME = timedelta(hours=1)
"""How long a bundle is kept if no job was launched with it."""
PRUNE_INTERVAL_S = 600.0


@dataclass(slots=True)
class CallQueue:
    """The calls of one person: some are served, the others wait in order."""

    turns: asyncio.Semaphore
    calls: int = 0


class Quotas:
    """Enforces the quotas. One per console, on its event loop; call the `require_…` methods that read the store in a thread."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._store, self._settings = deps.store, deps.settings
        self._queues: dict[tuple[str, bool], CallQueue] = {}

    @asynccontextmanager
    async def take_turn(self, person: str, *, stops: bool = False) -> AsyncIterator[None]:
        """Serve one call of a person in the block, after their earlier calls. Raises OverQuota if too many of their calls wait.

        Calls that stop jobs or revoke access have a separate queue: no other call of the person delays them.
        """
        key, limit = (person, stops), self._settings.quota_calls
        queue = self._queues.setdefault(key, CallQueue(asyncio.Semaphore(limit)))
        if queue.calls >= limit * (1 + WAITING_CALLS_PER_TURN):
            await asyncio.sleep(REFUSAL_DELAY_S)
            raise OverQuota(
                f"{queue.calls} of your calls are already being served or waiting; send fewer at once", retry_after=REFUSAL_DELAY_S
            )
        queue.calls += 1
        try:
            async with queue.turns:
                yield
        finally:
            queue.calls -= 1
            if not queue.calls:
                del self._queues[key]

    def require_stream(self, used: int) -> None:
        """Raise OverQuota if a person with this many open event streams may not open another one."""
        _require(used, self._settings.quota_event_streams, "event streams are open for you here; close some pages or clients")

    def require_session(self, person: str, *, began_after: datetime, used_after: datetime) -> None:
        """Raise OverQuota if a person may start no further session on the pages."""
        used = self._store.page_sessions.count_open(person, began_after=began_after, used_after=used_after)
        _require(
            used, self._settings.quota_page_sessions, "sessions are open for you; log out of some (see Sessions), or wait until they end"
        )

    def require_bundle(self, person: str) -> None:
        """Raise OverQuota if a person may upload no further bundle until they launch jobs with the bundles that they have uploaded."""
        used = self._store.bundles.count_unused(person, since=self._deps.now() - UNUSED_BUNDLE_LIFETIME)
        _require(
            used, self._settings.quota_unused_bundles, "bundles that you uploaded are not used by any job; launch jobs with them first"
        )

    def require_job(self, verified: VerifiedOrder) -> None:
        """Raise OverQuota if the launcher of an order has too many open jobs, or requests that wait for people, in the order's environment."""
        environment = verified.spec.environment
        # A job without access may name any environment. Environments that no resource has share one quota with all others, or there would be no limit.
        resources = self._deps.config.current().catalog.resources.values()
        known = environment if any(resource.environment == environment for resource in resources) else None
        origin, where = verified.statement.origin, f" in {environment}" if known else ""
        who = "your" if origin is None else f"{origin}'s"
        used = self._store.jobs.count_open(verified.statement.person, origin=origin, environment=known)
        _require(used, self._settings.quota_open_jobs, f"of {who} jobs{where} have not ended; wait until some have, or stop them")
        used = self._store.requests.count_waiting(verified.statement.person, origin=origin, environment=known)
        _require(used, self._settings.quota_waiting_requests, f"of {who} requests{where} wait for people; wait for answers, or stop jobs")


def _require(used: int, quota: int, what: str) -> None:
    if used >= quota:
        raise OverQuota(f"{used:,} {what} (the quota is {quota:,})", retry_after=RETRY_AFTER_S)


async def run_pruning(deps: Deps) -> None:
    """Delete the bundles that no job uses every PRUNE_INTERVAL_S, until cancelled."""

    async def prune() -> None:
        await to_thread.run_sync(partial(deps.store.bundles.prune, before=deps.now() - UNUSED_BUNDLE_LIFETIME))

    await repeat(prune, every_s=PRUNE_INTERVAL_S, failure="unused bundles cannot be pruned now")
