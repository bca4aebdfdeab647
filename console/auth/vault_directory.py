"""People and groups in Vault, cached for seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault import Vault, VaultDenied, VaultRefused, user_login
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAGES
from justenough.domain.integrations.job_identity import KEY as IDENTITY_KEY

FRESH = 10.0
"""Seconds for which a person, once read, is believed."""


V = TypeVar("V")


class PeopleUnknown(RetryLater):
    """Vault answers, but not to the console."""


class PeopleVault(Vault):
    """Vault as the console uses it: to read people and their public keys, asked again only after FRESH seconds, to sign what triggers and schedules
    order, and to keep visitors' tokens as ciphertext.

    The worker always reads anew.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert)
        self._approle_file = settings.console_approle_file
        self._ready = False
        self._entry = threading.Lock()
        self._persons: Recent[Person | None] = Recent()
        self._public: Recent[dict[int, bytes]] = Recent()

    def person(self, entity_id: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person as of at most FRESH seconds ago; None where the entity is no person, or a disabled one."""
        return self._persons.get(entity_id, lambda: self._asking(lambda: super(PeopleVault, self).person(entity_id, people_mounts)))

    def person_named(self, name: str, *, like: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person of a login name, on a mount where another person has a login too."""
        mounts = tuple(people_mounts)
        return self._asking(lambda: super(PeopleVault, self).person_named(name, like=like, people_mounts=mounts))

    def public_keys(self, entity_id: str) -> dict[int, bytes]:
        """Return the person's public keys by version, as of at most FRESH seconds ago."""
        return self._public.get(entity_id, lambda: self._asking(lambda: super(PeopleVault, self).public_keys(entity_id)))

    def identity_keys(self) -> dict[int, bytes]:
        """Return the public keys that verify jobs' identities, by version, as of now."""
        return self._asking(super().identity_keys, what=f"the key {IDENTITY_KEY}")

    def is_console(self, entity_id: str) -> bool:
        """Whether this is the console's own entity: ours, where `vault setup` has made it."""
        return self._asking(lambda: super(PeopleVault, self).is_console(entity_id))

    def own_entity(self) -> str:
        """Return our own entity id."""
        return self._asking(super().own_entity, what="its own login")

    def sign_own(self, entity_id: str, message: bytes) -> str:
        """Return our own signature."""
        return self._asking(lambda: super(PeopleVault, self).sign_own(entity_id, message), what=f"or use the key je-sign-{entity_id}")

    def signing_secrets(self, path: str) -> Mapping[str, Secret]:
        """Return the fields of a trigger's secret."""
        return self._asking(lambda: self.creds(path), what=path).fields

    def seal(self, token: Secret, context: bytes) -> str:
        """Return a visitor's token as ciphertext that only this context opens."""
        return self._asking(lambda: user_login.seal(self, token, context), what=f"or use the key {PAGES}")

    def unseal(self, ciphertext: str, context: bytes) -> Secret:
        """Return a visitor's token. Raises visitors.Unreadable where the context is another's."""
        return self._asking(lambda: user_login.unseal(self, ciphertext, context), what=f"or use the key {PAGES}")

    def notify_urls(self, path: str) -> Mapping[str, Secret]:
        """Return the fields of a secret that says where notifications go."""
        return self._asking(lambda: self.creds(path), what=path).fields

    def known(self, entity_id: str) -> Person | None:
        """Return the person where the last look is fresh enough; None does not say that there is none."""
        return self._persons.fresh(entity_id)

    def _asking(self, ask: Callable[[], V], *, what: str = "people") -> V:
        try:
            self._logged_in()
            return ask()
        except (VaultDenied, VaultRefused) as error:
            raise PeopleUnknown(f"Vault does not let the console read {what}; `justenough vault setup` gives it the right") from error

    def _logged_in(self) -> None:
        # Not at start: the console serves its health before Vault answers.
        with self._entry:
            if not self._ready:
                self.login_approle_file(self._approle_file)
                self.keep_alive()
                self._ready = True


class Recent(Generic[V]):
    """Values that are believed for FRESH seconds; one caller reads for all that wait for the same key."""

    MAX = 10_000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[float, V]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def fresh(self, key: str) -> V | None:
        """Return the value where it is fresh."""
        found = self._values.get(key)
        return found[1] if found and self._clock() - found[0] < FRESH else None

    def get(self, key: str, read: Callable[[], V]) -> V:
        """Return the value, read where it is not fresh; what `read` raises is raised and not kept."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            found = self._values.get(key)
            if found and self._clock() - found[0] < FRESH:
                return found[1]
            began = self._clock()
            value = read()
            self._keep(key, began, value)
            return value

    def _keep(self, key: str, at: float, value: V) -> None:
        with self._guard:
            if len(self._values) >= self.MAX:
                self._values.clear()
                self._locks.clear()
            self._values[key] = (at, value)
