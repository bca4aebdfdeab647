"""Keeps a job's leases while it runs: re-checks policy before each renewal, renews within the grant's ttl, and revokes at the ttl or on the
first denial.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog

from activities.issuing.issuer import Issuer
from activities.issuing.results import EndReason, IssuedCredential
from activities.revocation import revoke as revocation
from justenough.adapters.vault import UnknownHandle, VaultRefused
from justenough.domain.core.errors import JustEnoughError, NotFound, RetryLater
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.dependencies import Deps

RENEW_AT_FRACTION = 0.5
"""Fraction of a lease's life after which it is renewed."""
RETRY_INTERVAL_S = 2.0
RENEWAL_TIMEOUT_S = 1.0
"""Seconds that a session's end waits for a renewal that is under way."""
TTL_OVER = EndReason("its ttl is over")
log = structlog.get_logger()

T = TypeVar("T")


class LeaseKeeper:
    """Keeps the leases of one job's credentials, those issued at its start and those issued later."""

    def __init__(self, deps: Deps, job: str, issuer: Issuer) -> None:
        self._deps = deps
        self._job = job
        self._issuer = issuer
        self._keepers: dict[str, tuple[IssuedCredential, asyncio.Task[None]]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    def keep(self, item: IssuedCredential) -> None:
        """Keep a credential from now on, until it ends or `close`."""
        task = asyncio.create_task(_keep(self._deps, self._job, self._issuer, item))
        self._keepers[item.credential.id] = item, task
        task.add_done_callback(lambda _: self._keepers.pop(item.credential.id, None))

    async def give_back(self, credential: str, why: str, *, before: tuple[Event, ...] = ()) -> None:
        """Revoke one credential now, until that is confirmed and recorded. Raises NotFound if the job does not hold it.

        A second caller waits for the first one's revocation: each attempt takes a thread, and a job may call very often.
        """
        if credential not in self._ending:
            found = self._keepers.pop(credential, None)
            if found is None:
                message = f"the job holds no credential {credential}"
                raise NotFound(message)
            item, keeper = found

            async def stop_and_end() -> None:
                keeper.cancel()
                # A renewal that is under way must not overtake the revocation.
                await asyncio.wait({keeper}, timeout=RENEWAL_TIMEOUT_S + 1)
                await _end_until_confirmed(self._deps, self._job, self._issuer, item, EndReason(why, before))

            ending = asyncio.create_task(stop_and_end())
            self._ending[credential] = ending
            ending.add_done_callback(lambda _: self._ending.pop(credential, None))
        await asyncio.shield(self._ending[credential])

    async def close(self) -> None:
        """Stop keeping leases: from now on the session's own revocation ends them."""
        keepers = [*(task for _, task in self._keepers.values()), *self._ending.values()]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


@contextlib.asynccontextmanager
async def keep_leases(deps: Deps, job: str, issuer: Issuer, issued: Iterable[IssuedCredential]) -> AsyncIterator[LeaseKeeper]:
    """Keep each credential's lease until the block ends; then the session's own revocation ends it."""
    keepers = LeaseKeeper(deps, job, issuer)
    for item in issued:
        keepers.keep(item)
    try:
        yield keepers
    finally:
        await keepers.close()


async def _keep(deps: Deps, job: str, issuer: Issuer, item: IssuedCredential) -> None:
    lives, why = item.lease_seconds, TTL_OVER
    while (left := _seconds_left(deps, item)) > 0:
        if lives is None or lives >= left:
            await asyncio.sleep(left)
            break
        await asyncio.sleep(lives * RENEW_AT_FRACTION)
        renewed = await _renew_with_retries(deps, job, issuer, item, within=lives * (1 - RENEW_AT_FRACTION))
        if isinstance(renewed, EndReason):
            why = renewed
            break
        lives = renewed
    await _end_until_confirmed(deps, job, issuer, item, why)


def _seconds_left(deps: Deps, item: IssuedCredential) -> float:
    return item.seconds_left(now=deps.now(), ticks=deps.ticks())


async def _renew_with_retries(deps: Deps, job: str, issuer: Issuer, item: IssuedCredential, *, within: float) -> int | EndReason:
    """Return the seconds that the lease lives now, or why it must end: a denial, or no answer from a server within `within` seconds."""
    end = deps.ticks() + within
    while True:
        try:
            return await _run_undisturbed(lambda: _renew(deps, job, issuer, item))
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being decided, renewed and recorded: in the end it ends
            log.warning("lease not renewed", job=job, credential=item.credential.id, error=type(error).__name__)
            # A server that restarts must not end a healthy job's access; the lease bounds the wait. Vault refuses if its engine cannot
            # reach the target; an unknown lease is final.
            again = isinstance(error, (RetryLater, VaultRefused)) and not isinstance(error, UnknownHandle)
            if not again or deps.ticks() + RETRY_INTERVAL_S >= end:
                return EndReason(f"its lease could not be renewed: {error if isinstance(error, JustEnoughError) else type(error).__name__}")
        await asyncio.sleep(RETRY_INTERVAL_S)


def _renew(deps: Deps, job: str, issuer: Issuer, item: IssuedCredential) -> int | EndReason:
    """Decide, renew, record. Ask for no more than the grant's remaining time, in whole seconds, as Vault counts."""
    lease, left = item.credential.lease_id, math.ceil(_seconds_left(deps, item))
    if lease is None or left <= 0:
        return TTL_OVER
    ending = issuer.reason_to_end(item)
    if ending:
        return ending
    lives = deps.vault.renew_lease(lease, min(left, item.lease_seconds or left))
    now, credential, ends = deps.now(), item.credential.id, item.credential.expires_at.isoformat()
    about = f"{credential}/{now.timestamp():.0f}"
    deps.store.ledger.append([build_event(EventType.CREDENTIAL_RENEWED, job, at=now, about=about, credential=credential, expires_at=ends)])
    return lives or TTL_OVER


async def _run_undisturbed(call: Callable[[], T]) -> T:
    """Call in a thread. If the session ends meanwhile, let the call end first: a renewal must not overtake the revocation."""
    calling = asyncio.create_task(asyncio.to_thread(call))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait({calling}, timeout=RENEWAL_TIMEOUT_S)
        raise


async def _end_until_confirmed(deps: Deps, job: str, issuer: Issuer, item: IssuedCredential, ending: EndReason) -> None:
    """Revoke one credential while its job goes on, until that is confirmed and recorded."""
    log.info("credential ends before its job", job=job, credential=item.credential.id, why=ending.why)
    while True:
        others = issuer.others_beside(item.credential)
        revoke = partial(revocation.end_one, deps, job, item.credential, others, by="session", why=ending.why, before=ending.events)
        try:
            result = await asyncio.to_thread(revoke)
        except Exception as error:  # noqa: BLE001 - its time is over, whatever is in the way: this goes on until it is dead
            log.warning("credential not revoked yet", job=job, credential=item.credential.id, error=type(error).__name__)
        else:
            if result.confirmed:
                issuer.forget(item.credential)
            if result.confirmed and not result.events:
                return
        await asyncio.sleep(RETRY_INTERVAL_S)
