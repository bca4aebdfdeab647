"""Keys that the console reads from Vault when needed, and caches: public keys for job identity tokens, and signing secrets of events.

Use only on the event loop. Signs nothing, and never logs a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from anyio import to_thread

from console.auth.vault_directory import ConsoleVault
from console.concurrency.caches import SingleFlightCache
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.core.vault_names import IDENTITY_KEY
from justenough.domain.integrations.webhook_signature import parse_signing_secret

IDENTITY_KEYS_TTL_S = 10.0
"""For up to this time, a new key version may not be served yet, and a deleted one may still be served."""
SIGNING_SECRETS_TTL_S = 30.0
"""For up to this time, a new secret may not be accepted yet, and a replaced one may still be accepted."""
RETRY_INTERVAL_S = 3.0
"""Pause after a failed read: callers without a token must not make the console call an unreachable Vault each time."""
READ_TIMEOUT_S = 2.0
"""How long a caller waits for a read; then it gets the last known keys."""
NOT_VERIFIABLE_TEXT = "deliveries cannot be verified now; send this delivery again later"
SECRET_FIELDS = ("secret", "previous")
"""Fields of the kv secret. Both are valid, so that a sender can rotate its secret."""

log = structlog.get_logger()


class IdentityKeysUnavailable(RetryLater):
    """The keys have not been read from Vault since this console started."""


class IdentityKeys:
    """The keys by version. While Vault is unreachable, the last known keys are served: they are public and do not expire."""

    def __init__(self, vault: ConsoleVault) -> None:
        self._vault = vault
        # Callers share one read at a time, so that a hanging Vault blocks one thread and not one per caller.
        self._cache = SingleFlightCache(self._read)

    async def current(self) -> Mapping[int, bytes]:
        """Return the keys by version. Raises IdentityKeysUnavailable if none was ever read."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._cache.get(IDENTITY_KEY, max_age_s=IDENTITY_KEYS_TTL_S, retry_s=RETRY_INTERVAL_S)
        except (TimeoutError, JustEnoughError) as error:
            keys = self._cache.last(IDENTITY_KEY)
            if keys is None:
                raise IdentityKeysUnavailable(
                    f"the key {IDENTITY_KEY} has not been read from Vault yet: check that Vault answers and that `justenough vault setup` has run"
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


class SigningSecretUnavailable(RetryLater):
    """A signing secret cannot be read now, so no delivery can be verified or signed. Unauthenticated senders see the message."""


class SigningSecrets:
    """The keys of each trigger and each webhook, by the path of its secret."""

    def __init__(self, vault: ConsoleVault) -> None:
        self._vault = vault
        self._cache = SingleFlightCache(self._read, forget_after_s=SIGNING_SECRETS_TTL_S)

    async def keys_of(self, path: str) -> tuple[bytes, ...]:
        """Return the keys in a secret, the current one first. Raises SigningSecretUnavailable."""
        return await self._cache.get(path, max_age_s=SIGNING_SECRETS_TTL_S, retry_s=RETRY_INTERVAL_S)

    async def _read(self, path: str) -> tuple[bytes, ...]:
        try:
            fields = (await to_thread.run_sync(self._vault.creds, path, abandon_on_cancel=True)).fields
            keys = tuple(parse_signing_secret(fields[name]) for name in SECRET_FIELDS if name in fields)
            if not keys:
                raise SigningSecretUnavailable(f"{path} has no field `secret`")
        except (JustEnoughError, ValueError) as error:
            log.warning("a signing secret cannot be read", path=path, error=type(error).__name__, why=str(error)[:300])
            raise SigningSecretUnavailable(NOT_VERIFIABLE_TEXT) from None
        return keys
