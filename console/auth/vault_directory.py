"""Vault as the console uses it: people and groups, cached for seconds, and the console's own keys and secrets."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from console.concurrency.caches import ThreadCache
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault import Vault, VaultDenied, VaultRefused, user_login
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.vault_names import IDENTITY_KEY, LEDGER_KEY, PAGE_SESSION_KEY, PAYLOAD_KEY, signing_key

CACHE_TTL_S = 10.0
"""How old a person's data, or a session's token, may be."""

MEMBERS_TTL_S = 300.0
"""How old the list of a group's members may be."""

P = ParamSpec("P")
V = TypeVar("V")


class VaultRightMissing(RetryLater):
    """Vault answers, but a policy of the console lacks a right."""


def _with_login(call: Callable[Concatenate[Any, P], V], *, what: str = "people") -> Callable[Concatenate[ConsoleVault, P], V]:
    """Return a method of `Vault` as one that logs in if necessary. It raises VaultRightMissing if Vault refuses.

    `what`: what the console may then not read; `{}` stands for the method's first argument.
    """

    @wraps(call)
    def method(self: ConsoleVault, /, *args: P.args, **named: P.kwargs) -> V:
        try:
            # Not at startup: the console serves its health checks before Vault answers.
            with self._login_lock:
                if not self._ready:
                    self.login_from_file(self._approle_file)
                    self.keep_alive()
                    self._ready = True
            return call(self, *args, **named)
        except (VaultDenied, VaultRefused) as error:
            raise VaultRightMissing(
                f"Vault does not let the console read {what.format(*args)}; run `justenough vault setup` to give it the right"
            ) from error

    return method


class ConsoleVault(Vault):
    """The console's Vault client. It logs in when first used. People and public keys are cached for CACHE_TTL_S; the worker has no such cache."""

    person_named = _with_login(Vault.person_named)
    is_console = _with_login(Vault.is_console)
    own_entity = _with_login(Vault.own_entity, what="its own login")
    require_audited_answer = _with_login(Vault.require_audited_answer, what="its own login")
    identity_keys = _with_login(Vault.identity_keys, what=f"the key {IDENTITY_KEY}")
    ledger_key_versions = _with_login(Vault.ledger_key_versions, what=f"the key {LEDGER_KEY}")
    signing_key_versions = _with_login(Vault.signing_key_versions, what="the list of keys (transit/keys)")
    sign_for_ledger = _with_login(Vault.sign_for_ledger, what=f"or use the key {LEDGER_KEY}")
    wrap_data_key = _with_login(Vault.wrap_data_key, what=f"or use the key {PAYLOAD_KEY}")
    unwrap_data_key = _with_login(Vault.unwrap_data_key, what=f"or use the key {PAYLOAD_KEY}")
    sign_own = _with_login(Vault.sign_own, what=f"or use the key {signing_key('{}')}")
    # Credentials for the console itself, and secrets that triggers.yaml names: signing secrets or Apprise URLs.
    creds = _with_login(Vault.creds, what="{}")
    _read_person = _with_login(Vault.person)
    _read_members = _with_login(Vault.members, what="the members of groups")
    _read_public_keys = _with_login(Vault.public_keys)

    # A page session's token.
    seal = _with_login(user_login.encrypt_token, what=f"or use the key {PAGE_SESSION_KEY}")
    unseal = _with_login(user_login.decrypt_token, what=f"or use the key {PAGE_SESSION_KEY}")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert)
        self._approle_file = settings.console_approle_file
        self._ready = False
        self._login_lock = threading.Lock()
        self._person_cache: ThreadCache[Person | None] = ThreadCache()
        self._member_cache: ThreadCache[tuple[Person, ...]] = ThreadCache()
        self._public_key_cache: ThreadCache[dict[int, bytes]] = ThreadCache()

    def person(self, entity_id: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person, read at most CACHE_TTL_S ago; None if the entity is not a person or is disabled."""
        return self._person_cache.get(entity_id, lambda: self._read_person(entity_id, people_mounts), max_age_s=CACHE_TTL_S)

    def members(self, group: str, people_mounts: Iterable[str]) -> tuple[Person, ...]:
        """Return a group's members, read at most MEMBERS_TTL_S ago; empty if Vault does not list them."""

        def read() -> tuple[Person, ...]:
            # Names only help people to find each other; nothing depends on them.
            with suppress(RetryLater):
                return self._read_members(group, people_mounts)
            return ()

        return self._member_cache.get(group, read, max_age_s=MEMBERS_TTL_S)

    def public_keys(self, entity_id: str) -> dict[int, bytes]:
        """Return the person's public keys by version, read at most CACHE_TTL_S ago."""
        return self._public_key_cache.get(entity_id, lambda: self._read_public_keys(entity_id), max_age_s=CACHE_TTL_S)

    def cached_person(self, entity_id: str, *, of_any_age: bool = False) -> Person | None:
        """Return the person as in Vault's last answer, if it is `of_any_age` or fresh; None if there is no such answer or person."""
        return self._person_cache.peek(entity_id, max_age_s=math.inf if of_any_age else CACHE_TTL_S)
