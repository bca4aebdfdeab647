"""Credentials that a session holds on to, until something has happened to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from activities.issuing import lease_keeper
from activities.issuing.issuer import Issuer
from activities.issuing.results import IssuedCredential
from tests.activities.vault_shop import Desk


async def keep_until(at: Desk, job: str, issuer: Issuer, item: IssuedCredential, happened: Callable[[], bool]) -> None:
    """Keep a credential as a session does until something has happened. Fail if it does not happen in time."""
    async with lease_keeper.keep_leases(at.deps, job, issuer, [item]), asyncio.timeout(180):
        while not await asyncio.to_thread(happened):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
