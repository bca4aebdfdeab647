"""Vault as the console uses it: people and groups, cached for seconds, and the console's own keys and secrets."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from console.concurrency.caches import ThreadCache
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault import IssuedSecret, Vault, VaultDenied, VaultRefused, user_login
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import IDENTITY_KEY, LEDGER_KEY, PAGE_SESSION_KEY, PAYLOAD_KEY, signing_key
from justenough.domain.ledger.public_keys import KeyVersion

CACHE_TTL_S = 10.0
"""How old a person's data, or a session's token, may be."""

MEMBERS_TTL_S = 300.0
"""How old the list of a group's members may be."""

V = TypeVar("V")


class VaultRightMissing(RetryLater):
    """Vault answers, but a policy of the console lacks a right."""


class ConsoleVault(Vault):
    """The console's Vault client. It logs in when first used. People and public keys are cached for CACHE_TTL_S; the worker has no such cache."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert)
        self._approle_file = settings.console_approle_file
        self._ready = False
        self._login_lock = threading.Lock()
        self._person_cache: ThreadCache[Person | None] = ThreadCache()
        self._member_cache: ThreadCache[tuple[str, ...]] = ThreadCache()
        self._public_key_cache: ThreadCache[dict[int, bytes]] = ThreadCache()

    def person(self, entity_id: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person, read at most CACHE_TTL_S ago; None if the entity is not a person or is disabled."""
        return self._person_cache.get(
            entity_id, lambda: self._ask(lambda: super(ConsoleVault, self).person(entity_id, people_mounts)), max_age_s=CACHE_TTL_S
        )

    def person_named(self, name: str, *, like: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person with this login name on a mount where the person `like` also has a login; None if there is none."""
        return self._ask(lambda: super(ConsoleVault, self).person_named(name, like=like, people_mounts=people_mounts))

    def member_names(self, group: str, people_mounts: Iterable[str]) -> tuple[str, ...]:
        """Return the login names of a group's members, read at most MEMBERS_TTL_S ago; empty if Vault does not list them."""

        def read() -> tuple[str, ...]:
            # Names only help people to find each other; nothing depends on them.
            with suppress(RetryLater):
                return self._ask(lambda: super(ConsoleVault, self).member_names(group, people_mounts), what="the members of groups")
            return ()

        return self._member_cache.get(group, read, max_age_s=MEMBERS_TTL_S)

    def public_keys(self, entity_id: str) -> dict[int, bytes]:
        """Return the person's public keys by version, read at most CACHE_TTL_S ago."""
        return self._public_key_cache.get(
            entity_id, lambda: self._ask(lambda: super(ConsoleVault, self).public_keys(entity_id)), max_age_s=CACHE_TTL_S
        )

    def identity_keys(self) -> dict[int, bytes]:
        """Read the public keys that verify job identity tokens, by version."""
        return self._ask(super().identity_keys, what=f"the key {IDENTITY_KEY}")

    def is_console(self, entity_id: str) -> bool:
        """Whether this is the entity that `vault setup` made for the console."""
        return self._ask(lambda: super(ConsoleVault, self).is_console(entity_id))

    def require_audited_answer(self) -> None:
        """Make a request of the console's own that Vault audits, logging in first if necessary."""
        self._ask(super().require_audited_answer, what="its own login")

    def own_entity(self) -> str:
        """Return the console's own entity id."""
        return self._ask(super().own_entity, what="its own login")

    def sign_own(self, entity_id: str, message: bytes) -> str:
        """Sign a message with the console's own key."""
        return self._ask(lambda: super(ConsoleVault, self).sign_own(entity_id, message), what=f"or use the key {signing_key(entity_id)}")

    def sign_for_ledger(self, message: bytes) -> tuple[bytes, bytes]:
        """Sign with the ledger's key; return the raw public key and the raw signature."""
        return self._ask(lambda: super(ConsoleVault, self).sign_for_ledger(message), what=f"or use the key {LEDGER_KEY}")

    def wrap_data_key(self, key: Secret) -> str:
        """Return a data key of Temporal payloads as ciphertext."""
        return self._ask(lambda: super(ConsoleVault, self).wrap_data_key(key), what=f"or use the key {PAYLOAD_KEY}")

    def unwrap_data_key(self, wrapped: str) -> Secret | None:
        """Return the data key of a ciphertext; None if Vault cannot decrypt it."""
        return self._ask(lambda: super(ConsoleVault, self).unwrap_data_key(wrapped), what=f"or use the key {PAYLOAD_KEY}")

    def ledger_key_versions(self) -> tuple[KeyVersion, ...]:
        """Return every version of the ledger's key."""
        return self._ask(super().ledger_key_versions, what=f"the key {LEDGER_KEY}")

    def signing_key_versions(self) -> dict[str, tuple[KeyVersion, ...]]:
        """Return every version of every person's signing key, by the person's entity id."""
        return self._ask(super().signing_key_versions, what="the list of keys (transit/keys)")

    def creds(self, path: str) -> IssuedSecret:
        """Return credentials for the console itself, or a secret that triggers.yaml names: signing secrets or Apprise URLs."""
        return self._ask(lambda: super(ConsoleVault, self).creds(path), what=path)

    def seal(self, token: Secret, context: bytes) -> str:
        """Encrypt a page session's token; only the same context decrypts it."""
        return self._ask(lambda: user_login.encrypt_token(self, token, context), what=f"or use the key {PAGE_SESSION_KEY}")

    def unseal(self, ciphertext: str, context: bytes) -> Secret:
        """Decrypt a page session's token. Raises user_login.Unreadable if the context is not the one it was encrypted with."""
        return self._ask(lambda: user_login.decrypt_token(self, ciphertext, context), what=f"or use the key {PAGE_SESSION_KEY}")

    def cached_person(self, entity_id: str, *, however_old: bool = False) -> Person | None:
        """Return the person as in Vault's last answer, which is fresh or may be `however_old`; None if there is no such answer or person."""
        return self._person_cache.peek(entity_id, max_age_s=math.inf if however_old else CACHE_TTL_S)

    def _ask(self, call: Callable[[], V], *, what: str = "people") -> V:
        """Log in if necessary and return the result of a call.

        Raises VaultRightMissing, which names the path that the console may not read.
        """
        try:
            # Not at startup: the console serves its health checks before Vault answers.
            with self._login_lock:
                if not self._ready:
                    self.login_from_file(self._approle_file)
                    self.keep_alive()
                    self._ready = True
            return call()
        except (VaultDenied, VaultRefused) as error:
            raise VaultRightMissing(
                f"Vault does not let the console read {what}; run `justenough vault setup` to give it the right"
            ) from error
