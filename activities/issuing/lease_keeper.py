"""Keeps a job's leases while it runs: re-checks policy before each renewal, renews within the grant's ttl, and revokes at the ttl or on the
first denial.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable
from functools import partial

import structlog

from activities.issuing.issuer import Issuer
from activities.issuing.results import ACCESS_CLOSED, AccessClosed, EndReason, IssuedCredential, renewed_event
from activities.revocation import revoke
from activities.support.async_tools import ignore_error
from justenough.adapters.vault import UnknownHandle, VaultRefused
from justenough.domain.core.errors import JustEnoughError, NotFound, RetryLater
from justenough.domain.ledger.events import Event
from justenough.services.dependencies import Deps

RENEW_AT_FRACTION = 0.5
"""Fraction of a lease's life after which it is renewed."""
CHECK_INTERVAL_S = 10.0
"""Seconds between two checks whether a grant has ended."""
RETRY_INTERVAL_S = 2.0
RENEWAL_TIMEOUT_S = 1.0
"""Seconds that a session's end waits for a renewal that is under way."""
MAX_LEASE_THREADS = 4
"""Shared threads that one job's leases may use at once: credentials that end together must not block other jobs."""
TTL_OVER = EndReason("its ttl has ended")
log = structlog.get_logger()


class LeaseKeeper:
    """Keeps the leases of one job's credentials, those issued at its start and those issued later."""

    def __init__(self, deps: Deps, job: str, issuer: Issuer) -> None:
        self._deps = deps
        self._job = job
        self._issuer = issuer
        self._keepers: dict[str, tuple[IssuedCredential, asyncio.Task[None]]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._threads = asyncio.Semaphore(MAX_LEASE_THREADS)

    def keep(self, item: IssuedCredential) -> None:
        """Keep a credential from now on, until it ends or `close` is called."""
        task = asyncio.create_task(self._keep(item))
        self._keepers[item.credential.id] = item, task
        task.add_done_callback(lambda _: self._keepers.pop(item.credential.id, None))

    async def revoke_credential(self, credential: str, why: str, *, before: tuple[Event, ...] = ()) -> None:
        """Revoke one credential now, until that is confirmed and recorded. Raises NotFound if the job does not hold it, AccessClosed if `close`
        is called before that.

        A second caller waits for the first caller's revocation: each attempt takes a thread, and a job may call very often.
        """
        if credential not in self._ending:
            if credential not in self._keepers:
                raise NotFound(f"the job has no active credential {credential}")
            item, keeper = self._keepers.pop(credential)

            async def stop_and_end() -> None:
                keeper.cancel()
                # A renewal that is under way must not overtake the revocation.
                await asyncio.wait({keeper}, timeout=RENEWAL_TIMEOUT_S + 1)
                await self._end_until_confirmed(item, EndReason(why, before))

            ending = asyncio.create_task(stop_and_end())
            self._ending[credential] = ending
            ending.add_done_callback(lambda _: self._ending.pop(credential, None))
        ending = self._ending[credential]
        await asyncio.wait({ending})
        if ending.cancelled():
            raise AccessClosed(ACCESS_CLOSED)
        ending.result()

    async def close(self) -> None:
        """Stop keeping leases: from now on the session's own revocation ends them."""
        keepers = [*(task for _, task in self._keepers.values()), *self._ending.values()]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, item: IssuedCredential) -> None:
        # Since its issue, its session may have waited for other credentials or for the job's files.
        now, why = self._deps.ticks(), TTL_OVER
        lease_ends = math.inf if item.lease_seconds is None else max(now, min(item.began, now) + item.lease_seconds)
        renew_at = now + (lease_ends - now) * RENEW_AT_FRACTION
        while True:
            # Read the ticks first: a lease that ends with its grant must not seem to end a moment before it.
            now, left = self._deps.ticks(), self._seconds_left(item)
            if left <= 0:
                break
            pause = left if lease_ends >= now + left else renew_at - now
            if pause > 0:
                # Sleep in steps, because a sleep does not count the time for which the machine is suspended.
                await asyncio.sleep(min(pause, CHECK_INTERVAL_S))
                continue
            renewed = await self._renew_with_retries(item, within=lease_ends - now)
            if isinstance(renewed, EndReason):
                why = renewed
                break
            now = self._deps.ticks()
            lease_ends, renew_at = now + renewed, now + renewed * RENEW_AT_FRACTION
        await self._end_until_confirmed(item, why)

    def _seconds_left(self, item: IssuedCredential) -> float:
        return item.seconds_left(now=self._deps.now(), ticks=self._deps.ticks())

    async def _renew_with_retries(self, item: IssuedCredential, *, within: float) -> int | EndReason:
        """Return the seconds that the lease lives now, or why it must end: a denial, or no answer from a server within `within` seconds."""
        end = self._deps.ticks() + within
        while True:
            try:
                async with self._threads:
                    renewal = asyncio.create_task(asyncio.to_thread(self._renew, item))
                    renewal.add_done_callback(ignore_error)
                    try:
                        return await asyncio.shield(renewal)
                    except asyncio.CancelledError:
                        # The session is ending. Let the call end first: a renewal must not overtake the revocation.
                        await asyncio.wait({renewal}, timeout=RENEWAL_TIMEOUT_S)
                        raise
            except Exception as error:  # noqa: BLE001 - whatever prevents the decision, the renewal or its record ends the lease in the end
                log.warning("lease not renewed", job=self._job, credential=item.credential.id, error=type(error).__name__)
                # A server that restarts must not end a healthy job's access; the lease bounds the wait. Vault refuses if its engine cannot
                # reach the target; an unknown lease is final.
                again = isinstance(error, (RetryLater, VaultRefused)) and not isinstance(error, UnknownHandle)
                if not again or self._deps.ticks() + RETRY_INTERVAL_S >= end:
                    why = error if isinstance(error, JustEnoughError) else type(error).__name__
                    return EndReason(f"its lease could not be renewed: {why}")
            await asyncio.sleep(RETRY_INTERVAL_S)

    def _renew(self, item: IssuedCredential) -> int | EndReason:
        """Decide, renew, record. Request at most the grant's remaining time, in whole seconds, because Vault counts in seconds."""
        lease, left = item.credential.lease_id, math.ceil(self._seconds_left(item))
        if lease is None or left <= 0:
            return TTL_OVER
        if ending := self._issuer.reason_to_end(item):
            return ending
        lives = self._deps.vault.renew_lease(lease, min(left, item.lease_seconds or left))
        self._deps.store.ledger.append([renewed_event(self._job, item.credential, at=self._deps.now())])
        return lives or TTL_OVER

    async def _end_until_confirmed(self, item: IssuedCredential, ending: EndReason) -> None:
        """Revoke one credential while its job continues, until the revocation is confirmed and recorded."""
        log.info("credential ends before its job", job=self._job, credential=item.credential.id, why=ending.why)
        revoke_once = partial(
            revoke.revoke_by_handle, self._deps, self._job, item.credential, by="session", why=ending.why, before=ending.events
        )
        while True:
            try:
                async with self._threads:
                    result = await asyncio.to_thread(revoke_once, self._issuer.others_beside(item.credential))
            except Exception as error:  # noqa: BLE001 - its time is over, so this repeats until it is dead, whatever fails
                log.warning("credential not revoked yet", job=self._job, credential=item.credential.id, error=type(error).__name__)
            else:
                if result.confirmed:
                    self._issuer.forget(item.credential, result.events)
                if result.confirmed and not result.events:
                    return
            await asyncio.sleep(RETRY_INTERVAL_S)


@contextlib.asynccontextmanager
async def keep_leases(deps: Deps, job: str, issuer: Issuer, issued: Iterable[IssuedCredential]) -> AsyncIterator[LeaseKeeper]:
    """Keep each credential's lease until the block ends; then the session's own revocation ends it."""
    keeper = LeaseKeeper(deps, job, issuer)
    for item in issued:
        keeper.keep(item)
    try:
        yield keeper
    finally:
        await keeper.close()
