"""The signing secrets of incoming and outgoing events, read from Vault when needed and cached. For the event loop; never logs a secret."""

from __future__ import annotations

import structlog
from anyio import to_thread

from console.auth.vault_directory import ConsoleVault
from console.concurrency.caches import SingleFlightCache
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.integrations.webhook_signature import parse_signing_secret

CACHE_TTL_S = 30.0
"""A new secret may be missing for this long, and a replaced one may still be valid."""
RETRY_INTERVAL_S = 3.0
"""Pause after a failed read: deliveries of unauthenticated senders must not make the console call Vault each time."""
SECRET_FIELDS = ("secret", "previous")
"""Fields of the kv secret. Both are valid, so that a sender can rotate its secret."""

log = structlog.get_logger()


class SigningSecretUnavailable(RetryLater):
    """A signing secret cannot be read now, so no delivery can be verified or signed. Unauthenticated senders see the message."""


class SigningSecrets:
    """The keys of each trigger and each webhook, by the path of its secret."""

    def __init__(self, vault: ConsoleVault) -> None:
        self._vault = vault
        self._cache = SingleFlightCache(self._read, forget_after_s=CACHE_TTL_S)

    async def keys_of(self, path: str) -> tuple[bytes, ...]:
        """Return the keys in a secret, the current one first. Raises SigningSecretUnavailable."""
        return await self._cache.get(path, max_age_s=CACHE_TTL_S, retry_s=RETRY_INTERVAL_S)

    async def _read(self, path: str) -> tuple[bytes, ...]:
        try:
            fields = await to_thread.run_sync(self._vault.secret_fields, path, abandon_on_cancel=True)
            keys = tuple(parse_signing_secret(fields[name]) for name in SECRET_FIELDS if name in fields)
            if not keys:
                raise SigningSecretUnavailable(f"{path} has no field `secret`")
        except (JustEnoughError, ValueError) as error:
            log.warning("a signing secret cannot be read", path=path, error=type(error).__name__, why=str(error)[:300])
            raise SigningSecretUnavailable("deliveries cannot be verified now; send it again later") from None
        return keys
