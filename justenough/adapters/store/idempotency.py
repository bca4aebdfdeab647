"""Idempotency keys: the job that each of a person's keys was used for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from justenough.adapters.store import ledger_writer
from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, reads, writes
from justenough.adapters.store.tables import IDEMPOTENCY
from justenough.domain.core.errors import Conflict
from justenough.domain.ledger.events import Event


class KeyUse(NamedTuple):
    """The job id under a person's key, the digest it was used with, and whether the events sent with it were recorded just now."""

    job: str
    digest: str
    is_recorded: bool


class IdempotencyRepository(Repository):
    def remember(self, person: str, key: str, job: str, digest: str, *, events: Sequence[Event] = ()) -> KeyUse:
        """Return the job id under a person's key: `job` if the key is new. Raises Conflict if the key was used with another digest.

        If the key is new, the events are recorded in the same transaction: otherwise a failure in between would use up the key without an order.
        """
        use = self._insert_or_get(person, key, job, digest, events)
        if use.digest != digest:
            # Raise this outside of the transaction, because other writers may share it.
            raise Conflict(f"this idempotency key was already used for a different order: job {use.job}")
        return use

    @writes
    def _insert_or_get(self, connection: Connection, person: str, key: str, job: str, digest: str, events: Sequence[Event]) -> KeyUse:
        if insert_new(connection, IDEMPOTENCY, {"person": person, "key": key, "job": job, "digest": digest}):
            return KeyUse(job, digest, bool(ledger_writer.record(connection, events)))
        known = select(IDEMPOTENCY.c.job, IDEMPOTENCY.c.digest).where(IDEMPOTENCY.c.person == person, IDEMPOTENCY.c.key == key)
        return KeyUse(*connection.execute(known).one(), is_recorded=False)

    @reads
    def find_job(self, connection: Connection, person: str, key: str) -> str | None:
        """Return the job id under a person's key; None if the key was never used."""
        statement = select(IDEMPOTENCY.c.job).where(IDEMPOTENCY.c.person == person, IDEMPOTENCY.c.key == key)
        return connection.execute(statement).scalar()
