"""Page sessions: a Vault login starts one, a cookie identifies it, and it ends by logout, by time, or when the person is disabled.

The cookie is 32 random bytes. The store has its hash and the login's Vault token, encrypted with a key that depends on the cookie: without the
cookie, even the store and the console's own Vault login together cannot decrypt the token.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

import structlog
from anyio import to_thread

from console.auth.tokens import TokenVerifier, ask_vault
from console.auth.vault_directory import CACHE_TTL_S, ConsoleVault
from console.concurrency.caches import ThreadCache
from console.concurrency.quotas import Quotas
from console.concurrency.vault_threads import VAULT_THREADS
from justenough.adapters.store import PageSessionRecord
from justenough.adapters.vault import VaultDenied, VaultRefused, user_login
from justenough.adapters.vault.user_login import LoginResult, TokenInfo, Unreadable
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import GiveUp, RetryLater, Unauthenticated
from justenough.domain.core.secret import Secret
from justenough.services.dependencies import Deps

FRESH_LOGIN_AGE = timedelta(minutes=5)
LAST_USE_WRITE_INTERVAL = timedelta(minutes=1)
ENDED_ROW_RETENTION = timedelta(days=7)
"""How long rows of ended sessions stay in the store after their maximum lifetime."""
ALWAYS_ALLOWED_POLICIES = frozenset({"default", "je-person"})
LOGGED_OUT_EVERYWHERE_TEXT = "you logged out everywhere"

log = structlog.get_logger()


class PageSessions:
    """Starts, checks and ends sessions. One per console."""

    def __init__(self, deps: Deps, vault: ConsoleVault, people: TokenVerifier, quotas: Quotas) -> None:
        self._store, self._now = deps.store, deps.now
        self._vault = vault
        self._people = people
        self._quotas = quotas
        self._max_idle = timedelta(seconds=deps.settings.pages_idle)
        self._max_lifetime = timedelta(seconds=deps.settings.pages_longest)
        self._allowed_policies = ALWAYS_ALLOWED_POLICIES | frozenset(deps.settings.pages_policies)
        self._token_cache: ThreadCache[TokenInfo | None] = ThreadCache(clock=lambda: deps.now().timestamp())

    async def start(self, entry: LoginResult, *, method: PageLoginMethod, name: str | None = None) -> SessionKey:
        """Start a session for a login and return the key for its cookie.

        Raises UnknownPerson, TokenTooPowerful, TokenTooWeak, OverQuota, RetryLater; the token is then revoked.
        """
        try:
            person = await self._people.person(entry.entity)
            if person is None:
                raise UnknownPerson("this login does not belong to an active person on a people mount")
            if why := self._why_too_powerful(entry.policies):
                raise TokenTooPowerful(why)
            key = await VAULT_THREADS.run(partial(self._store_session, entry, name or person.name, method))
        except (GiveUp, RetryLater):
            await self.end_token(entry.token)
            raise
        log.info("login", name=name or person.name, how=method.value)
        return key

    async def end_token(self, token: Secret) -> None:
        """Revoke a token. If Vault is unreachable, the token expires by itself."""
        try:
            await VAULT_THREADS.run(partial(user_login.revoke_token, self._vault, token))
        except (RetryLater, VaultRefused):
            log.warning("a page session's token could not be revoked; it expires by itself")

    async def session_of(self, cookie: str | None, *, by_person: bool = True, allow_last_known: bool = False) -> ActiveSession:
        """Return the session of a cookie. `by_person=False` is for requests that an open page sends by itself: they do not extend the session.

        `allow_last_known`: if Vault does not answer, use its last answer about the login. That suffices for reading, and for reducing
        access. Raises NoSession with the reason, RetryLater if Vault or the store is unreachable.
        """
        key = SessionKey.from_cookie(cookie or "")
        row = await to_thread.run_sync(self._store.page_sessions.get, key.hash)
        if row is None:
            raise NoSession("you are not logged in")
        if row.ended_at is not None:
            raise NoSession(row.ended_why or "this session has ended")
        over = self._why_over(row)
        person = None if over else await self._people.person(row.person, allow_last_known=allow_last_known)
        if person is None:
            why = over or "your login no longer exists or is disabled"
            await self._end(key, row, why)
            raise NoSession(why)
        known = self._token_cache.peek(row.key, max_age_s=float("inf")) if allow_last_known else None
        token = await ask_vault(lambda: self._look_up_token(key, row), last_known=known)
        if invalid := self._why_invalid(row, token):
            raise await to_thread.run_sync(self._end_row, row, invalid)
        is_recent = self._token_cache.peek(row.key, max_age_s=CACHE_TTL_S) is not None
        # What Vault does not confirm now is not use that it should renew.
        # A time in the future was recorded before the clock was set back.
        if is_recent and by_person and abs(self._now() - row.seen_at) >= LAST_USE_WRITE_INTERVAL:
            await VAULT_THREADS.run(partial(self._record_use, key, row))
        fresh = row.fresh_at is not None and -MAX_CLOCK_SKEW <= self._now() - row.fresh_at < FRESH_LOGIN_AGE
        return ActiveSession(key, row, person, fresh, row.created_at + self._max_lifetime)

    async def refresh_login(self, session: ActiveSession, entry: LoginResult) -> None:
        """Accept another login of the same person as proof that they are present. Raises WrongPerson."""
        await self.end_token(entry.token)
        if entry.entity != session.person.id:
            raise WrongPerson("this login belongs to a different person; log out first to continue as them")
        await to_thread.run_sync(self._store.page_sessions.mark_fresh, session.row.key, self._now())
        log.info("login", name=session.row.name, how=session.row.how, fresh=True)

    async def end(self, session: ActiveSession) -> None:
        """End a session in the store and revoke its token in Vault."""
        await self._end(session.key, session.row, "you logged out")

    async def end_everywhere(self, session: ActiveSession) -> None:
        """End all sessions of the person. Only this session's token is revoked: decrypting the others needs their cookies."""
        await to_thread.run_sync(lambda: self._store.page_sessions.end(session.person.id, self._now(), why=LOGGED_OUT_EVERYWHERE_TEXT))
        await self._end(session.key, session.row, LOGGED_OUT_EVERYWHERE_TEXT)

    async def end_one(self, session: ActiveSession, key: str) -> None:
        """End one of the person's sessions by its key. Another person's session is left alone."""
        if key == session.row.key:
            await self.end(session)
            return
        why = "you ended this session from another one"
        if await to_thread.run_sync(lambda: self._store.page_sessions.end(session.person.id, self._now(), key=key, why=why)):
            log.info("logout", name=session.row.name, why=why)

    async def open_sessions_of(self, session: ActiveSession) -> tuple[PageSessionRecord, ...]:
        rows = await to_thread.run_sync(
            lambda: self._store.page_sessions.open_of(session.person.id, since=self._now() - self._max_lifetime)
        )
        return tuple(row for row in rows if not self._why_over(row))

    async def token(self, session: ActiveSession) -> Secret:
        """Decrypt the session's Vault token, for one call."""
        return await VAULT_THREADS.run(partial(self._vault.unseal, session.row.ciphertext, session.key.context))

    def _store_session(self, entry: LoginResult, name: str, method: PageLoginMethod) -> SessionKey:
        now = self._now()
        self._quotas.require_session(entry.entity, began_after=now - self._max_lifetime, used_after=now - self._max_idle)
        try:
            user_login.create_signing_key(self._vault, entry.token, entry.entity)
        except (VaultDenied, VaultRefused) as error:
            raise TokenTooWeak("this login cannot sign: its token lacks the policy je-person") from error
        key = SessionKey.new()
        row = PageSessionRecord(
            key=key.hash,
            person=entry.entity,
            name=name,
            how=method.value,
            ciphertext=self._vault.seal(entry.token, key.context),
            created_at=now,
            seen_at=now,
            # An identity provider may have reused its own session without authenticating the person again.
            fresh_at=now if method is PageLoginMethod.PASSWORD else None,
        )
        self._store.page_sessions.add(row, forget_before=now - self._max_lifetime - ENDED_ROW_RETENTION)
        return key

    def _why_over(self, row: PageSessionRecord) -> str | None:
        now = self._now()
        if now - row.created_at >= self._max_lifetime:
            return f"you were logged in for {_hours(self._max_lifetime)}, which is the maximum"
        if now - row.seen_at >= self._max_idle:
            return f"you were inactive for longer than {_hours(self._max_idle)}"
        return None

    def _look_up_token(self, key: SessionKey, row: PageSessionRecord) -> TokenInfo | None:
        """Return Vault's information about the session's token, at most CACHE_TTL_S old; None if the token is no longer valid."""

        def read() -> TokenInfo | None:
            with contextlib.suppress(Unreadable):
                return user_login.look_up_token(self._vault, self._vault.unseal(row.ciphertext, key.context))
            return None

        return self._token_cache.get(row.key, read, max_age_s=CACHE_TTL_S)

    def _why_invalid(self, row: PageSessionRecord, token: TokenInfo | None) -> str | None:
        """Return why a session ends without revoking its token, which the session then no longer uses; None if the token is valid."""
        if token is None:
            return "Vault has ended this login"
        if token.entity != row.person:
            # Anyone with write access to the store can change the person of a row. Only Vault knows whose token it is.
            return "this login belongs to a different person than the session"
        return self._why_too_powerful(token.policies)

    def _why_too_powerful(self, policies: frozenset[str]) -> str | None:
        more = policies - self._allowed_policies
        return f"this login has policies that the pages do not allow: {', '.join(sorted(more))}" if more else None

    def _record_use(self, key: SessionKey, row: PageSessionRecord) -> None:
        self._store.page_sessions.mark_used(row.key, self._now())
        # Some mounts do not renew their tokens; these tokens expire.
        with contextlib.suppress(VaultDenied, VaultRefused):
            user_login.renew_token(self._vault, self._vault.unseal(row.ciphertext, key.context))

    def _end_row(self, row: PageSessionRecord, why: str) -> NoSession:
        """End a session in the store and return the error, whose message tells the person why."""
        self._store.page_sessions.end(row.person, self._now(), key=row.key, why=why)
        log.info("logout", name=row.name, why=why)
        return NoSession(why)

    async def _end(self, key: SessionKey, row: PageSessionRecord, why: str) -> None:
        # End the row first: from here on the cookie is worthless, even if Vault fails.
        await to_thread.run_sync(self._end_row, row, why)
        try:
            token = await VAULT_THREADS.run(partial(self._vault.unseal, row.ciphertext, key.context))
        except (Unreadable, RetryLater):
            log.warning("a page session's token could not be revoked; it expires by itself", name=row.name)
            return
        await self.end_token(token)


def _hours(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


SECRET_BYTES = 32


class PageLoginMethod(StrEnum):
    """The ways in which people log in to the pages."""

    PASSWORD = "password"  # noqa: S105 - a way to log in, not a password
    OIDC = "oidc"


class NoSession(Unauthenticated):
    """There is no session, or it has ended; the message gives the reason."""


class WrongPerson(GiveUp):
    """A repeated login belongs to a different person."""


class UnknownPerson(GiveUp):
    """The login is valid, but does not belong to a person that JustEnough knows."""


class TokenTooPowerful(GiveUp):
    """The login's token has policies that the pages do not allow."""


class TokenTooWeak(GiveUp):
    """The login's token lacks a right that people need here."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A cookie's secret, and the values that are derived from it."""

    secret: Secret
    """Base64url, as in the cookie."""

    @classmethod
    def new(cls) -> SessionKey:
        return cls(Secret(secrets.token_urlsafe(SECRET_BYTES)))

    @classmethod
    def from_cookie(cls, cookie: str) -> SessionKey:
        """Parse the key from a cookie. Raises NoSession."""
        try:
            raw = base64.b64decode(cookie + "=", altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != SECRET_BYTES:
            raise NoSession("you are not logged in")
        return cls(Secret(cookie))

    @property
    def hash(self) -> str:
        """The session's key in the store."""
        return hashlib.sha256(self.secret.reveal().encode()).hexdigest()

    @property
    def context(self) -> bytes:
        """The encryption context of the token."""
        return self._derive("token")

    @property
    def csrf(self) -> str:
        return self._derive("form").hex()

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self.secret.reveal().encode(), f"justenough pages {purpose}".encode(), "sha256")


@dataclass(frozen=True, slots=True)
class ActiveSession:
    """A valid session and its person."""

    key: SessionKey
    row: PageSessionRecord
    person: Person
    fresh: bool
    expires: datetime
    """When the session ends even if it is in use."""
