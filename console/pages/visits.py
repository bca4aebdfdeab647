"""What a session of the pages is: its cookie's key and what is made of it, whose it is, and why there is none. No I/O.

The cookie is 32 random bytes. What the store knows it by, what opens the token's ciphertext, and what its forms carry are all made from it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from activities.store import PageSession
from console.problems import Unauthenticated
from justenough.approval import Person
from justenough.errors import GiveUp
from justenough.secret import Secret

SIZE = 32
"""Bytes of a cookie's secret."""


class How(StrEnum):
    """How people log in to the pages."""

    PASSWORD = "password"  # noqa: S105 - a way to log in, not a password
    OIDC = "oidc"


class NotVisiting(Unauthenticated):
    """There is no session, or none any more; the message says why."""


class AnotherPerson(GiveUp):
    """A login that was to show anew who somebody is was somebody else's."""


class NoPerson(GiveUp):
    """The login holds, and belongs to nobody whom JustEnough knows."""


class TooMuch(GiveUp):
    """The login's token could do more than the pages may hold."""


class TooLittle(GiveUp):
    """The login's token cannot do what people need here."""


@dataclass(frozen=True, slots=True)
class Key:
    """A cookie's secret and all that is made from it."""

    secret: Secret
    """Base64url, as the cookie carries it."""

    @classmethod
    def new(cls) -> Key:
        """Return a new one."""
        return cls(Secret(base64.urlsafe_b64encode(secrets.token_bytes(SIZE)).decode().rstrip("=")))

    @classmethod
    def read(cls, cookie: str) -> Key:
        """Return the one that a cookie carries. Raises NotVisiting."""
        try:
            raw = base64.b64decode(cookie + "=", altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != SIZE:
            raise NotVisiting("you are not logged in")
        return cls(Secret(cookie))

    @property
    def hash(self) -> str:
        """What the store knows the session by."""
        return hashlib.sha256(self.secret.reveal().encode()).hexdigest()

    @property
    def context(self) -> bytes:
        """What the token's ciphertext is opened with."""
        return self._made("token")

    @property
    def csrf(self) -> str:
        """What the session's forms carry."""
        return self._made("form").hex()

    def _made(self, purpose: str) -> bytes:
        return hmac.digest(self.secret.reveal().encode(), f"justenough pages {purpose}".encode(), "sha256")


@dataclass(frozen=True, slots=True)
class Visit:
    """A session that holds now, and whose it is."""

    key: Key
    row: PageSession
    person: Person
    fresh: bool
    expires: datetime
    """When it is over even if it is used until then."""
