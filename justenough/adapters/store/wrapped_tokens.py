"""Encrypted wrapping tokens of requests that wait for a control group. Never in the ledger, never in a view."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from justenough.adapters.store import ledger_writer
from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_all, fetch_first, reads, writes
from justenough.adapters.store.tables import CLAIMS, LOCKS
from justenough.domain.core.base_model import Message
from justenough.domain.ledger.events import Event


class StoredWrappingToken(Message):
    request: str
    job: str
    accessor: str
    """Accessor of the control group's request in Vault. It gives no access."""
    token_accessor: str
    """Accessor of the job's token under which the request was sent."""
    ciphertext: str


class WrappedTokenRepository(Repository):
    @writes
    def keep(self, connection: Connection, token: StoredWrappingToken, events: Sequence[Event]) -> bool:
        """Store a token and record its events, in one transaction. Return False if the request has a token, or its job's claim is closed."""
        is_over = connection.execute(select(CLAIMS.c.job).where(CLAIMS.c.job == token.job)).first() is not None
        if is_over or not insert_new(connection, LOCKS, token.model_dump()):
            return False
        ledger_writer.record(connection, events)
        return True

    @reads
    def get(self, connection: Connection, request: str) -> StoredWrappingToken | None:
        return fetch_first(connection, select(LOCKS).where(LOCKS.c.request == request), StoredWrappingToken)

    @writes
    def take(self, connection: Connection, request: str) -> StoredWrappingToken | None:
        """Delete a request's token and return it. If several callers take it, only the first gets it; the others get None."""
        return fetch_first(connection, delete(LOCKS).where(LOCKS.c.request == request).returning(*LOCKS.c), StoredWrappingToken)

    @writes
    def put_back(self, connection: Connection, token: StoredWrappingToken) -> None:
        """Store a token again that was taken and not unwrapped, unless its job's claim was closed meanwhile."""
        if connection.execute(select(CLAIMS.c.job).where(CLAIMS.c.job == token.job, CLAIMS.c.closed_at.is_(None))).first():
            insert_new(connection, LOCKS, token.model_dump())


def drop_tokens(connection: Connection, job: str) -> tuple[StoredWrappingToken, ...]:
    return fetch_all(connection, delete(LOCKS).where(LOCKS.c.job == job).returning(*LOCKS.c), StoredWrappingToken)
