"""What opens a locked request, kept as ciphertext from its opening to its one use. Never in the ledger, never in a view.

Whoever takes a row has deleted it: of several who try, one gets it.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import CLAIMS, LOCKS
from justenough.domain.core.base_model import Message


class StoredWrappingToken(Message):
    """One row."""

    request: str
    job: str
    accessor: str
    """Of what waits in Vault; it opens nothing."""
    token_accessor: str
    """Of the job's token that asked."""
    ciphertext: str


def keep_token(connection: Connection, token: StoredWrappingToken) -> bool:
    """Keep a lock; False where one is kept for its request already, or its job may not be issued anything any more."""
    if connection.execute(select(CLAIMS.c.job).where(CLAIMS.c.job == token.job)).first():
        return False
    return insert_new(connection, LOCKS, token.model_dump())


def find_token(connection: Connection, request: str) -> StoredWrappingToken | None:
    """Return the lock that is kept for a request."""
    row = connection.execute(select(LOCKS).where(LOCKS.c.request == request)).mappings().first()
    return StoredWrappingToken(**row) if row else None


def take_token(connection: Connection, request: str) -> StoredWrappingToken | None:
    """Return the lock of a request and keep it no longer; None for all but the first who ask."""
    row = connection.execute(delete(LOCKS).where(LOCKS.c.request == request).returning(*LOCKS.c)).mappings().first()
    return StoredWrappingToken(**row) if row else None


def drop_tokens(connection: Connection, job: str) -> tuple[StoredWrappingToken, ...]:
    """Keep none of a job's locks any longer; return what was kept."""
    return tuple(
        StoredWrappingToken(**row) for row in connection.execute(delete(LOCKS).where(LOCKS.c.job == job).returning(*LOCKS.c)).mappings()
    )
