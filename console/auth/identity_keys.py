"""The public keys that verify jobs' identities, for whoever asks. Reads Vault; knows no job and signs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog
from anyio import to_thread

from console.auth.vault_directory import PeopleVault
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.integrations.job_identity import KEY

FRESH = 10.0
"""Seconds for which the keys are believed: how long a new version is unknown here, and one that was withdrawn is still told."""
PAUSE = 3.0
"""Seconds between two looks that fail: anyone may ask, and must not make us ask a Vault that is away each time."""
PATIENCE = 2.0
"""Seconds that whoever asks waits for a look."""

log = structlog.get_logger()


class KeysUnknown(RetryLater):
    """Vault has not told its keys since this console started."""


class IdentityKeys:
    """The keys by version, read again when they are old. Where Vault is away the last known ones hold: they are public and do not go bad."""

    def __init__(self, vault: PeopleVault) -> None:
        self._vault = vault
        self._keys: Mapping[int, bytes] = {}
        self._read_at = self._tried_at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    async def current(self) -> Mapping[int, bytes]:
        """Return the keys; raise KeysUnknown where none was ever read."""
        if _age(self._read_at) > FRESH:
            # One look for all, and the next only after it: a Vault that hangs must not get a thread from each who asks.
            await asyncio.wait({self._looking()}, timeout=PATIENCE)
        if not self._keys:
            raise KeysUnknown(f"Vault has not told the key {KEY} yet; it must answer, and `justenough vault setup` must have made the key")
        return self._keys

    def _looking(self) -> asyncio.Task[None]:
        if self._look is None or (self._look.done() and _age(self._tried_at) > PAUSE):
            self._tried_at = time.monotonic()
            self._look = asyncio.create_task(self._read())
        return self._look

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
