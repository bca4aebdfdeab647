"""The public keys that verify jobs' identities, for whoever asks. Reads Vault; knows no job and signs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog
from anyio import to_thread

from console.auth.vault_directory import ConsoleVault
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.integrations.job_identity import JOBS_KEY

CACHE_TTL_S = 10.0
"""Seconds for which the keys are believed: how long a new version is unknown here, and one that was withdrawn is still told."""
RETRY_INTERVAL_S = 3.0
"""Seconds between two looks that fail: anyone may ask, and must not make us ask a Vault that is away each time."""
READ_TIMEOUT_S = 2.0
"""Seconds that whoever asks waits for a look."""

log = structlog.get_logger()


class IdentityKeysUnavailable(RetryLater):
    """Vault has not told its keys since this console started."""


class IdentityKeys:
    """The keys by version, read again when they are old. Where Vault is away the last known ones hold: they are public and do not go bad."""

    def __init__(self, vault: ConsoleVault) -> None:
        self._vault = vault
        self._keys: Mapping[int, bytes] = {}
        self._read_at = self._tried_at = float("-inf")
        self._read_task: asyncio.Task[None] | None = None

    async def current(self) -> Mapping[int, bytes]:
        """Return the keys; raise KeysUnknown where none was ever read."""
        if _age(self._read_at) > CACHE_TTL_S:
            # One look for all, and the next only after it: a Vault that hangs must not get a thread from each who asks.
            await asyncio.wait({self._ensure_read()}, timeout=READ_TIMEOUT_S)
        if not self._keys:
            raise IdentityKeysUnavailable(
                f"Vault has not told the key {JOBS_KEY} yet; it must answer, and `justenough vault setup` must have made the key"
            )
        return self._keys

    def _ensure_read(self) -> asyncio.Task[None]:
        if self._read_task is None or (self._read_task.done() and _age(self._tried_at) > RETRY_INTERVAL_S):
            self._tried_at = time.monotonic()
            self._read_task = asyncio.create_task(self._read())
        return self._read_task

    async def _read(self) -> None:
        asked = time.monotonic()
        try:
            found = await to_thread.run_sync(self._vault.identity_keys, abandon_on_cancel=True)
        except JustEnoughError as error:
            log.warning("the keys of jobs' identities could not be read", error=type(error).__name__)
            return
        if found:
            self._keys, self._read_at = found, asked


def _age(moment: float) -> float:
    return time.monotonic() - moment
