"""Opens the store that the settings name. Its user and password may come from the URL, a file, or Vault's database engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store, StoreLogin, StoreUnavailable, StoreUnfit
from justenough.adapters.store.postgres_connection import PasswordFile, StoreLogins
from justenough.adapters.vault import Vault, VaultRefused
from justenough.domain.core.errors import JustEnoughError

RETRY_INTERVAL_S = 5.0
"""Seconds between two attempts to get newer credentials while the present ones are valid."""
REMEDY = "check JUSTENOUGH_DATABASE_CREDENTIALS, and run `justenough vault apply` with it"
MIN_VALID_S = 15.0
"""Credentials with less time left are not used for another transaction."""
MIN_REJECTED_AGE_S = 60.0
"""Seconds for which new credentials are kept even if the server refuses them: if a right is missing, further ones would not help either."""


def open_store(settings: Settings, vault: Vault) -> Store:
    """Return the store; it opens no connection yet. Raises StoreUnfit, UnusableUrl."""
    logins: StoreLogins | None = None
    sources = {
        "JUSTENOUGH_DATABASE_CREDENTIALS": settings.database_credentials,
        "JUSTENOUGH_DATABASE_PASSWORD_FILE": settings.database_password_file,
    }
    named = [name for name, value in sources.items() if value]
    if len(named) > 1:
        raise StoreUnfit(f"the store's password cannot come from two places: unset {named[0]} or {named[1]}")
    if settings.database_credentials:
        logins = VaultLogins(vault, settings.database_credentials)
    elif settings.database_password_file:
        logins = PasswordFile(settings.database_password_file)
    return Store(settings.store_url, listen_url=settings.database_listen_url, logins=logins)


@dataclass(frozen=True, slots=True)
class _Issued:
    """Credentials from Vault, the login to Vault under which they were issued, and when they begin and end (ticks)."""

    login: StoreLogin
    vault_login: object
    began: float
    ends: float

    def is_fresh(self, vault: Vault, now: float) -> bool:
        """Whether they can be kept: they have enough time left, and the login under which Vault issued them (and with which they end) is
        still in use.
        """
        return now < (self.began + self.ends) / 2 and vault.login_identity is self.vault_login

    def lasts(self, now: float) -> bool:
        """Whether they last long enough for another transaction."""
        return now < self.ends - MIN_VALID_S


class VaultLogins:
    """Users that Vault's database engine creates. Each is used for half its life; Vault drops it at its end. Thread-safe."""

    def __init__(self, vault: Vault, path: str, *, ticks: Callable[[], float] = monotonic) -> None:
        self._vault = vault
        self._path = path
        self._ticks = ticks
        self._issued: _Issued | None = None
        self._lock = threading.Lock()
        self._retry_at = float("-inf")

    def current(self) -> StoreLogin:
        """Return the newest user and password. Raises StoreUnavailable if the last credentials have ended and Vault issues no new ones."""
        issued, now = self._issued, self._ticks()
        if issued is not None and issued.is_fresh(self._vault, now):
            return issued.login
        if issued is not None and issued.lasts(now) and self._vault.login_identity is issued.vault_login:
            # Vault may hang, and every other transaction may wait for this one.
            if now >= self._retry_at and self._lock.acquire(blocking=False):
                try:
                    threading.Thread(target=self._replace, args=(issued,), name="store-login", daemon=True).start()
                except RuntimeError:
                    # The process may have no further thread now.
                    self._retry_at = now + RETRY_INTERVAL_S
                    self._lock.release()
            return issued.login
        with self._lock:
            issued, now = self._issued, self._ticks()
            if issued is not None and (issued.is_fresh(self._vault, now) or (now < self._retry_at and issued.lasts(now))):
                return issued.login
            try:
                issued = self._issued = self._read()
            except JustEnoughError as error:
                # While Vault is down, the store stays usable as long as its user lives.
                if issued is None or not issued.lasts(self._ticks()):
                    raise StoreUnavailable(f"there is no login for the store: {error}; {REMEDY}") from error
                self._retry_at = self._ticks() + RETRY_INTERVAL_S
            return issued.login

    def _replace(self, issued: _Issued) -> None:
        """Get the credentials that replace these, unless another thread already did. Releases the lock, which the caller acquired."""
        try:
            if self._issued is issued:
                self._issued = self._read()
        except JustEnoughError:
            self._retry_at = self._ticks() + RETRY_INTERVAL_S
        finally:
            self._lock.release()

    def is_current(self, login: StoreLogin) -> bool:
        return self.current() is login

    def reject(self, login: StoreLogin) -> None:
        """Use other credentials as soon as Vault issues some: it drops a user before its time if its lease is revoked."""
        issued = self._issued
        if issued is not None and issued.login is login and self._ticks() - issued.began >= MIN_REJECTED_AGE_S:
            # As if they came from an earlier login to Vault.
            self._issued = replace(issued, vault_login=object())

    def _read(self) -> _Issued:
        began, vault_login = self._ticks(), self._vault.login_identity
        secret = self._vault.creds(self._path)
        # The first use of a console's Vault logs in.
        vault_login = vault_login or self._vault.login_identity
        user, password = secret.fields.get("username"), secret.fields.get("password")
        if user is None or password is None or not secret.ttl:
            raise VaultRefused(
                f"{self._path} returns no user and password with a lease; JUSTENOUGH_DATABASE_CREDENTIALS must be MOUNT/creds/ROLE"
                " of a database engine"
            )
        return _Issued(StoreLogin(password, user=user.reveal()), vault_login, began, began + secret.ttl)
