"""What happens to a credential while its job runs: its lease is renewed within the grant's ttl, and at the ttl it is revoked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import structlog

from activities import revocation
from activities.deps import Deps
from activities.session.issuing import Issuance, Issuer
from justenough.events import Event, EventType, event

RENEW_AFTER = 0.5
"""The part of a lease's life after which it is renewed."""
TRY_AGAIN = 2.0
log = structlog.get_logger()


@contextlib.asynccontextmanager
async def kept(deps: Deps, job: str, issuer: Issuer, issued: Iterable[Issuance]) -> AsyncIterator[None]:
    """Keep each credential until the block ends; what ends it then is the session's own revocation."""
    keepers = [asyncio.create_task(_keep(deps, job, issuer, item)) for item in issued]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def _keep(deps: Deps, job: str, issuer: Issuer, item: Issuance) -> None:
    lives = item.lease_seconds
    while (left := _left(deps, item)) > 0:
        if lives is None or lives >= left:
            await asyncio.sleep(left)
            break
        await asyncio.sleep(lives * RENEW_AFTER)
        lives = await _renewed(deps, job, issuer, item)
        if lives == 0:
            break
    await _ended(deps, job, issuer, item)


def _left(deps: Deps, item: Issuance) -> float:
    return item.left(now=deps.now(), ticks=deps.ticks())


async def _renewed(deps: Deps, job: str, issuer: Issuer, item: Issuance) -> int:
    """Return the seconds that the lease lives now; 0 where policy no longer allows it or Vault will not."""
    lease = item.credential.lease_id
    wanted = min(int(_left(deps, item)), item.lease_seconds or 0)
    try:
        if lease is None or not await asyncio.to_thread(issuer.still_allowed, item.access):
            return 0
        lives = await asyncio.to_thread(deps.vault.renew_lease, lease, wanted)
        await asyncio.to_thread(deps.store.record, [_renewal(deps, job, item)])
    except Exception as error:  # noqa: BLE001 - whatever keeps it from being decided, renewed and recorded: then it ends
        log.warning("lease not renewed", job=job, credential=item.credential.id, error=type(error).__name__)
        return 0
    return lives


def _renewal(deps: Deps, job: str, item: Issuance) -> Event:
    now, credential = deps.now(), item.credential
    about = f"{credential.id}/{now.timestamp():.0f}"
    return event(
        EventType.CREDENTIAL_RENEWED, job, at=now, about=about, credential=credential.id, expires_at=credential.expires_at.isoformat()
    )


async def _ended(deps: Deps, job: str, issuer: Issuer, item: Issuance) -> None:
    """Revoke one credential while its job goes on, until it is confirmed: a ttl that is over is over."""
    while True:
        try:
            result = await asyncio.to_thread(revocation.revoke_one, deps, job, item.credential.id, by="session")
        except Exception as error:  # noqa: BLE001 - its time is over, whatever is in the way: this goes on until it is dead
            log.warning("credential not revoked yet", job=job, credential=item.credential.id, error=type(error).__name__)
        else:
            if result.confirmed:
                issuer.ended(item.access)
                return
        await asyncio.sleep(TRY_AGAIN)
