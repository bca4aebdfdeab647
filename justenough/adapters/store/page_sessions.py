"""Sessions of the console's pages: who is logged in by which cookie. Holds the cookie's hash and ciphertext; neither opens anything by itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from justenough.adapters.store.tables import PAGE_SESSIONS
from justenough.domain.core.base_model import Message


class PageSessionRecord(Message):
    """One row."""

    key: str
    """SHA-256 of the cookie's secret, in hex."""
    person: str
    """Vault entity id."""
    name: str
    """Login name."""
    how: str
    """`password` or `oidc`."""
    ciphertext: str
    """Of the login's Vault token; empty where it was ended from elsewhere."""
    created_at: datetime
    seen_at: datetime
    fresh_at: datetime | None
    """When the person last showed who they are; None where only their identity provider said so, which may have asked nothing."""
    ended_at: datetime | None = None
    ended_why: str | None = None
    """A sentence for the person, without its full stop."""


def add_session(connection: Connection, session: PageSessionRecord) -> None:
    """Keep a new session."""
    connection.execute(insert(PAGE_SESSIONS), session.model_dump())


def find_session(connection: Connection, key: str) -> PageSessionRecord | None:
    """Return the session under a key."""
    row = connection.execute(select(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == key)).mappings().first()
    return PageSessionRecord(**row) if row else None


def open_sessions_of(connection: Connection, person: str, *, since: datetime) -> tuple[PageSessionRecord, ...]:
    """Return a person's sessions that have not ended and began after a moment, the newest first."""
    theirs = (PAGE_SESSIONS.c.person == person) & PAGE_SESSIONS.c.ended_at.is_(None) & (PAGE_SESSIONS.c.created_at > since)
    rows = connection.execute(select(PAGE_SESSIONS).where(theirs).order_by(PAGE_SESSIONS.c.created_at.desc())).mappings()
    return tuple(PageSessionRecord(**row) for row in rows)


def mark_used(connection: Connection, key: str, *, at: datetime) -> None:
    """Say when a session was last used."""
    connection.execute(update(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == key).values(seen_at=at))


def mark_fresh(connection: Connection, key: str, *, at: datetime) -> None:
    """Say when a session's person last showed who they are."""
    connection.execute(update(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == key).values(fresh_at=at, seen_at=at))


def end_sessions(connection: Connection, person: str, *, key: str | None, at: datetime, why: str) -> int:
    """End a person's session under a key, or all of theirs, and forget the tokens; return how many had not ended. The first end stands."""
    theirs = (PAGE_SESSIONS.c.person == person) & PAGE_SESSIONS.c.ended_at.is_(None)
    which = theirs if key is None else theirs & (PAGE_SESSIONS.c.key == key)
    return connection.execute(update(PAGE_SESSIONS).where(which).values(ended_at=at, ended_why=why, ciphertext="")).rowcount


def prune_sessions(connection: Connection, *, before: datetime) -> int:
    """Delete sessions that began before a moment; return how many."""
    return connection.execute(delete(PAGE_SESSIONS).where(PAGE_SESSIONS.c.created_at < before)).rowcount
