"""The public keys that verify job identity tokens, served to anyone. Reads Vault; knows no job and signs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from anyio import to_thread

from console.auth.vault_directory import ConsoleVault
from console.concurrency.caches import SingleFlightCache
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.integrations.job_identity import JOBS_KEY

CACHE_TTL_S = 10.0
"""A new key version may be missing for this long, and a deleted one may still be served."""
RETRY_INTERVAL_S = 3.0
"""Pause after a failed read: the route needs no token, and its callers must not make the console call an unreachable Vault each time."""
READ_TIMEOUT_S = 2.0
"""How long a caller waits for a read; then it gets the last known keys."""

log = structlog.get_logger()


class IdentityKeysUnavailable(RetryLater):
    """The keys have not been read from Vault since this console started."""


class IdentityKeys:
    """The keys by version. While Vault is away the last known keys are served: they are public and do not expire."""

    def __init__(self, vault: ConsoleVault) -> None:
        self._vault = vault
        # Callers share one read at a time, so that a hanging Vault blocks one thread and not one per caller.
        self._cache = SingleFlightCache(self._read)

    async def current(self) -> Mapping[int, bytes]:
        """Return the keys by version. Raises IdentityKeysUnavailable if none was ever read."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._cache.get(JOBS_KEY, max_age_s=CACHE_TTL_S, retry_s=RETRY_INTERVAL_S)
        except (TimeoutError, JustEnoughError) as error:
            keys = self._cache.last(JOBS_KEY)
            if keys is None:
                raise IdentityKeysUnavailable(
                    f"the key {JOBS_KEY} has not been read from Vault yet: check that Vault answers and that `justenough vault setup` has run"
                ) from error
            return keys

    async def _read(self, name: str) -> Mapping[int, bytes]:
        try:
            keys = await to_thread.run_sync(self._vault.identity_keys, abandon_on_cancel=True)
        except JustEnoughError as error:
            log.warning("the public keys for job identity tokens could not be read", error=type(error).__name__)
            raise
        if not keys:
            raise IdentityKeysUnavailable(f"the key {name} has no version; run `justenough vault setup`")
        return keys
