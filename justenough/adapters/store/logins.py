"""The logins to PostgreSQL if the store's URL is incomplete: a password from a file, or a user that another component provides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from justenough.adapters.store.errors import StoreUnavailable
from justenough.domain.core.secret import Secret


@dataclass(frozen=True, slots=True)
class StoreLogin:
    """A login at the database server. `user` is None if the URL names the user."""

    password: Secret
    user: str | None = None


class StoreLogins(Protocol):
    """Provides the login of each new connection. Thread-safe. The first two methods may raise StoreUnavailable."""

    def current(self) -> StoreLogin:
        """Return the login for a new connection."""

    def is_current(self, login: StoreLogin) -> bool:
        """Whether a connection that was opened with this login may still be used. Called before each transaction."""

    def reject(self, login: StoreLogin) -> None:
        """Note that the server refused this login, or what was done with it. Another login may work."""


class PasswordFile:
    """The password in a file, read again for each new connection. A server keeps connections open when a password changes, and so do we."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def current(self) -> StoreLogin:
        """Return the login with the password that is in the file now. Raises StoreUnavailable."""
        try:
            password = self._file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise StoreUnavailable(
                f"the store's password file {self._file} cannot be read: {why}; correct JUSTENOUGH_DATABASE_PASSWORD_FILE"
            ) from None
        if not password or "\n" in password:
            raise StoreUnavailable(f"the store's password file {self._file} must have one line, the password")
        return StoreLogin(Secret(password))

    def is_current(self, login: StoreLogin) -> bool:
        """Return True."""
        del login
        return True

    def reject(self, login: StoreLogin) -> None:
        """Do nothing: the file is read for the next connection anyway."""
