"""Sessions of the pages: begun by a login at Vault, carried by a cookie, ended by logging out, by time, or with the person's own end.

The cookie is 32 random bytes. The store keeps its hash and the login's Vault token as ciphertext, whose key is derived from the cookie as well:
neither the store nor the console's own login at Vault nor both open it without the browser.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NoReturn

import structlog
from anyio import to_thread

from console.auth.tokens import People
from console.auth.vault_directory import PeopleVault, Recent
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import PageSession, Store
from justenough.adapters.vault import VaultDenied, VaultRefused, user_login
from justenough.adapters.vault.user_login import Carried, Entry, Unreadable
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import GiveUp, RetryLater, Unauthenticated
from justenough.domain.core.secret import Secret

FRESH = timedelta(minutes=5)
"""How long a login counts as fresh."""


NOTED = timedelta(minutes=1)
"""A session's last use is written no more often."""


KEPT = timedelta(days=7)
"""How long the rows of sessions that are over are kept beyond their longest time."""


ORDINARY = frozenset({"default", "je-person"})


NOBODY = "your login is not known here any more, or is disabled"


EVERYWHERE = "you logged out everywhere"


NOT_THEIRS = "this login is not the person's that it was kept for"


log = structlog.get_logger()


class Sessions:
    """Begins, looks at and ends sessions. One per console."""

    def __init__(
        self,
        *,
        store: Store,
        vault: PeopleVault,
        people: People,
        settings: Settings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._vault = vault
        self._people = people
        self._idle = timedelta(seconds=settings.pages_idle)
        self._longest = timedelta(seconds=settings.pages_longest)
        self._allowed = ORDINARY | frozenset(settings.pages_policies)
        self._now = now
        self._looks: Recent[Carried | None] = Recent(clock=lambda: now().timestamp())

    async def begin(self, entry: Entry, *, how: How, name: str | None = None) -> Key:
        """Begin a session for what a login (by this name) brought, and return its cookie's key. Raises NoPerson, TooMuch, TooLittle, RetryLater; the token is then ended."""
        try:
            person = await self.person_of(entry)
            key = await to_thread.run_sync(self._begin, entry, name or person.name, how)
        except (GiveUp, RetryLater):
            await self.drop(entry.token)
            raise
        log.info("login", name=name or person.name, how=how.value)
        return key

    async def person_of(self, entry: Entry) -> Person:
        """Return the person that a login stands for. Raises NoPerson, TooMuch."""
        person = await self._people.person(entry.entity)
        if person is None:
            raise NoPerson("this login belongs to nobody whom JustEnough knows")
        if more := entry.policies - self._allowed:
            raise TooMuch(f"this login carries more than the pages may hold: {', '.join(sorted(more))}")
        return person

    async def drop(self, token: Secret) -> None:
        """End a token that is not kept; where Vault is away, it ends by its time."""
        try:
            await to_thread.run_sync(user_login.end, self._vault, token)
        except (RetryLater, VaultRefused):
            log.warning("a token could not be ended now, and ends by its time")

    async def visit(self, cookie: str | None, *, used: bool = True) -> Visit:
        """Return whose session a cookie carries. `used`: by a person; what an open page asks by itself keeps no session from its end.

        Raises NotVisiting saying why there is none, RetryLater where Vault or the store is away.
        """
        key = Key.read(cookie or "")
        row = await to_thread.run_sync(self._store.page_session, key.hash)
        if row is None:
            raise NotVisiting("you are not logged in")
        if row.ended_at is not None:
            raise NotVisiting(row.ended_why or "this login was ended")
        if over := self._over(row):
            await self._end(key, row, over)
            raise NotVisiting(over)
        person = await self._people.person(row.person)
        if person is None:
            await self._end(key, row, NOBODY)
            raise NotVisiting(NOBODY)
        await to_thread.run_sync(lambda: self._checked(key, row, used=used))
        fresh = row.fresh_at is not None and self._now() - row.fresh_at < FRESH
        return Visit(key, row, person, fresh, row.created_at + self._longest)

    async def freshen(self, visit: Visit, entry: Entry) -> None:
        """Take a second login for the same person's sign that they are there. Raises AnotherPerson."""
        await self.drop(entry.token)
        if entry.entity != visit.person.id:
            raise AnotherPerson("this login is another person's; log out first to go on as them")
        await to_thread.run_sync(self._store.page_session_fresh, visit.row.key, self._now())
        log.info("login", name=visit.row.name, how=visit.row.how, fresh=True)

    async def end(self, visit: Visit) -> None:
        """End a session, in the store and in Vault."""
        await self._end(visit.key, visit.row, "you logged out")

    async def end_everywhere(self, visit: Visit) -> None:
        """End every session of the person's. The tokens of the others are forgotten: without their browsers nothing opens them any more."""
        await to_thread.run_sync(lambda: self._store.end_page_sessions(visit.person.id, self._now(), why=EVERYWHERE))
        await self._end(visit.key, visit.row, EVERYWHERE)

    async def end_one(self, visit: Visit, key: str) -> None:
        """End one of the person's sessions by its key; somebody else's stays."""
        if key == visit.row.key:
            await self.end(visit)
            return
        why = "you ended this login from another one"
        if await to_thread.run_sync(lambda: self._store.end_page_sessions(visit.person.id, self._now(), key=key, why=why)):
            log.info("logout", name=visit.row.name, why=why)

    async def all_of(self, visit: Visit) -> tuple[PageSession, ...]:
        """Return the person's sessions that are not over."""
        found = await to_thread.run_sync(lambda: self._store.page_sessions(visit.person.id, since=self._now() - self._longest))
        return tuple(row for row in found if not self._over(row))

    async def token(self, visit: Visit) -> Secret:
        """Return the session's Vault token, for the one call that needs it."""
        return await to_thread.run_sync(self._vault.unseal, visit.row.ciphertext, visit.key.context)

    def _begin(self, entry: Entry, name: str, how: How) -> Key:
        try:
            user_login.make_key(self._vault, entry.token, entry.entity)
        except (VaultDenied, VaultRefused) as error:
            raise TooLittle("this login may not sign: its token lacks the policy je-person") from error
        key, now = Key.new(), self._now()
        row = PageSession(
            key=key.hash,
            person=entry.entity,
            name=name,
            how=how.value,
            ciphertext=self._vault.seal(entry.token, key.context),
            created_at=now,
            seen_at=now,
            # An identity provider may have asked nothing: it knew the browser.
            fresh_at=now if how is How.PASSWORD else None,
        )
        self._store.add_page_session(row, forget_before=now - self._longest - KEPT)
        return key

    def _over(self, row: PageSession) -> str | None:
        now = self._now()
        if now - row.created_at >= self._longest:
            return f"you were logged in for {_hours(self._longest)}, which is the longest"
        if now - row.seen_at >= self._idle:
            return f"you were away for longer than {_hours(self._idle)}"
        return None

    def _checked(self, key: Key, row: PageSession, *, used: bool) -> None:
        """See that the token lives, is the person's, and carries no more than it may; once a minute, note the use and let it live on."""
        carried = self._looks.get(row.key, lambda: self._look(key, row))
        if carried is None:
            self._stop(row, "this login was ended in Vault")
        elif carried.entity != row.person:
            # A row says whose session it is, and whoever can write to the store can say so. Only Vault knows whose the token is.
            self._stop(row, NOT_THEIRS)
        elif more := carried.policies - self._allowed:
            # Its token stays out of our hands from here on, and ends by its time.
            self._stop(row, f"this login carries more than the pages may hold: {', '.join(sorted(more))}")
        if used and self._now() - row.seen_at >= NOTED:
            self._renew(key, row)

    def _stop(self, row: PageSession, why: str) -> NoReturn:
        self._store.end_page_sessions(row.person, self._now(), key=row.key, why=why)
        log.info("logout", name=row.name, why=why)
        raise NotVisiting(why)

    def _look(self, key: Key, row: PageSession) -> Carried | None:
        try:
            return user_login.carried_by(self._vault, self._vault.unseal(row.ciphertext, key.context))
        except Unreadable:
            return None

    def _renew(self, key: Key, row: PageSession) -> None:
        self._store.page_session_seen(row.key, self._now())
        try:
            user_login.renew(self._vault, self._vault.unseal(row.ciphertext, key.context))
        except (VaultDenied, VaultRefused):
            # A mount whose tokens are not renewed lets them end by their time.
            return

    async def _end(self, key: Key, row: PageSession, why: str) -> None:
        # The row first: whatever Vault says, the cookie is worth nothing from here on.
        await to_thread.run_sync(lambda: self._store.end_page_sessions(row.person, self._now(), key=row.key, why=why))
        log.info("logout", name=row.name, why=why)
        try:
            token = await to_thread.run_sync(self._vault.unseal, row.ciphertext, key.context)
        except (Unreadable, RetryLater):
            log.warning("a token could not be ended now, and ends by its time", name=row.name)
            return
        await self.drop(token)


def _hours(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


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
