"""People and groups in Vault, cached for seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from console.concurrency.caches import ThreadCache
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault import Vault, VaultDenied, VaultRefused, user_login
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAGE_SESSION_KEY
from justenough.domain.integrations.job_identity import JOBS_KEY as IDENTITY_KEY

CACHE_TTL_S = 10.0
"""Seconds for which a person, once read, is believed."""


V = TypeVar("V")


class VaultRightMissing(RetryLater):
    """Vault answers, but not to the console."""


class ConsoleVault(Vault):
    """Vault as the console uses it: to read people and their public keys, asked again only after FRESH seconds, to sign what triggers and schedules
    order, and to keep visitors' tokens as ciphertext.

    The worker always reads anew.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert)
        self._approle_file = settings.console_approle_file
        self._ready = False
        self._login_lock = threading.Lock()
        self._person_cache: ThreadCache[Person | None] = ThreadCache()
        self._public_key_cache: ThreadCache[dict[int, bytes]] = ThreadCache()

    def person(self, entity_id: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person as of at most FRESH seconds ago; None where the entity is no person, or a disabled one."""
        return self._person_cache.get(
            entity_id, lambda: self._ask(lambda: super(ConsoleVault, self).person(entity_id, people_mounts)), max_age_s=CACHE_TTL_S
        )

    def person_named(self, name: str, *, like: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person of a login name, on a mount where another person has a login too."""
        mounts = tuple(people_mounts)
        return self._ask(lambda: super(ConsoleVault, self).person_named(name, like=like, people_mounts=mounts))

    def public_keys(self, entity_id: str) -> dict[int, bytes]:
        """Return the person's public keys by version, as of at most FRESH seconds ago."""
        return self._public_key_cache.get(
            entity_id, lambda: self._ask(lambda: super(ConsoleVault, self).public_keys(entity_id)), max_age_s=CACHE_TTL_S
        )

    def identity_keys(self) -> dict[int, bytes]:
        """Return the public keys that verify jobs' identities, by version, as of now."""
        return self._ask(super().identity_keys, what=f"the key {IDENTITY_KEY}")

    def is_console(self, entity_id: str) -> bool:
        """Whether this is the console's own entity: ours, where `vault setup` has made it."""
        return self._ask(lambda: super(ConsoleVault, self).is_console(entity_id))

    def own_entity(self) -> str:
        """Return our own entity id."""
        return self._ask(super().own_entity, what="its own login")

    def sign_own(self, entity_id: str, message: bytes) -> str:
        """Return our own signature."""
        return self._ask(lambda: super(ConsoleVault, self).sign_own(entity_id, message), what=f"or use the key je-sign-{entity_id}")

    def signing_secrets(self, path: str) -> Mapping[str, Secret]:
        """Return the fields of a trigger's secret."""
        return self._ask(lambda: self.creds(path), what=path).fields

    def seal(self, token: Secret, context: bytes) -> str:
        """Return a visitor's token as ciphertext that only this context opens."""
        return self._ask(lambda: user_login.encrypt_token(self, token, context), what=f"or use the key {PAGE_SESSION_KEY}")

    def unseal(self, ciphertext: str, context: bytes) -> Secret:
        """Return a visitor's token. Raises visitors.Unreadable where the context is another's."""
        return self._ask(lambda: user_login.decrypt_token(self, ciphertext, context), what=f"or use the key {PAGE_SESSION_KEY}")

    def notify_urls(self, path: str) -> Mapping[str, Secret]:
        """Return the fields of a secret that says where notifications go."""
        return self._ask(lambda: self.creds(path), what=path).fields

    def cached_person(self, entity_id: str) -> Person | None:
        """Return the person where the last look is fresh enough; None does not say that there is none."""
        return self._person_cache.peek(entity_id, max_age_s=CACHE_TTL_S)

    def _ask(self, ask: Callable[[], V], *, what: str = "people") -> V:
        try:
            self._ensure_login()
            return ask()
        except (VaultDenied, VaultRefused) as error:
            raise VaultRightMissing(f"Vault does not let the console read {what}; `justenough vault setup` gives it the right") from error

    def _ensure_login(self) -> None:
        # Not at start: the console serves its health before Vault answers.
        with self._login_lock:
            if not self._ready:
                self.login_approle_file(self._approle_file)
                self.keep_alive()
                self._ready = True
