"""Sessions of the console's pages, by cookie. A row holds a hash and a ciphertext; neither gives access by itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from justenough.adapters.store.repository import Repository, count_rows, fetch_all, fetch_first, reads, without_nul, writes
from justenough.adapters.store.tables import PAGE_SESSIONS
from justenough.domain.core.base_model import Message


class PageSessionRecord(Message):
    key: str
    """SHA-256 of the cookie's secret, in hex."""
    person: str
    """Vault entity id."""
    name: str
    """Login name."""
    how: str
    """`password` or `oidc`."""
    ciphertext: str
    """The encrypted Vault token of the login; empty once the session has ended."""
    created_at: datetime
    seen_at: datetime
    fresh_at: datetime | None
    """When the person last authenticated. None if they came through their identity provider, which may have reused a session."""
    ended_at: datetime | None = None
    ended_why: str | None = None
    """Shown to the person: a sentence without its full stop."""


class PageSessionRepository(Repository):
    @writes
    def add(self, connection: Connection, session: PageSessionRecord, *, forget_before: datetime) -> None:
        """Store a new session, and delete those that began before `forget_before`."""
        connection.execute(delete(PAGE_SESSIONS).where(PAGE_SESSIONS.c.created_at < forget_before))
        connection.execute(insert(PAGE_SESSIONS), session.model_dump())

    @reads
    def get(self, connection: Connection, key: str) -> PageSessionRecord | None:
        return fetch_first(connection, select(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == key), PageSessionRecord)

    @reads
    def open_of(self, connection: Connection, person: str, *, since: datetime) -> tuple[PageSessionRecord, ...]:
        """Return a person's open sessions that began after `since`, newest first."""
        is_open = (PAGE_SESSIONS.c.person == person) & PAGE_SESSIONS.c.ended_at.is_(None) & (PAGE_SESSIONS.c.created_at > since)
        statement = select(PAGE_SESSIONS).where(is_open).order_by(PAGE_SESSIONS.c.created_at.desc())
        return fetch_all(connection, statement, PageSessionRecord)

    @reads
    def count_open(self, connection: Connection, person: str, *, began_after: datetime, used_after: datetime) -> int:
        """Return how many sessions of a person have not ended, are not too old, and have not been unused for too long."""
        is_open = (PAGE_SESSIONS.c.person == person) & PAGE_SESSIONS.c.ended_at.is_(None)
        return count_rows(
            connection, PAGE_SESSIONS, is_open, PAGE_SESSIONS.c.created_at > began_after, PAGE_SESSIONS.c.seen_at > used_after
        )

    @writes
    def mark_used(self, connection: Connection, key: str, at: datetime) -> None:
        connection.execute(update(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == key).values(seen_at=at))

    @writes
    def mark_fresh(self, connection: Connection, key: str, at: datetime) -> None:
        """Record when the session's person last authenticated."""
        connection.execute(update(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == key).values(fresh_at=at, seen_at=at))

    @writes
    def end(self, connection: Connection, person: str, at: datetime, *, why: str, key: str | None = None) -> int:
        """End the person's open session under `key`, or all their open sessions, and delete the tokens. Return how many were open."""
        is_open = (PAGE_SESSIONS.c.person == person) & PAGE_SESSIONS.c.ended_at.is_(None)
        # A form sends the key. No row contains NUL, and PostgreSQL rejects it in a query.
        which = is_open if key is None else is_open & (PAGE_SESSIONS.c.key == without_nul(key))
        return connection.execute(update(PAGE_SESSIONS).where(which).values(ended_at=at, ended_why=why, ciphertext="")).rowcount
