"""Idempotency keys: the job that each of a person's keys was used for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, reads, writes
from justenough.adapters.store.tables import IDEMPOTENCY
from justenough.domain.core.errors import Conflict


class IdempotencyRepository(Repository):
    def remember(self, person: str, key: str, job: str, digest: str) -> str:
        """Return the job id under a person's key: `job` if the key is new. Raises Conflict if the key was used with another digest."""
        known = self._insert_or_get(person, key, job, digest)
        if known.digest != digest:
            # Raise this outside of the transaction, because other writers may share it.
            raise Conflict(f"this idempotency key was already used for a different order: job {known.job}")
        return str(known.job)

    @writes
    def _insert_or_get(self, connection: Connection, person: str, key: str, job: str, digest: str) -> Row[Any]:
        insert_new(connection, IDEMPOTENCY, {"person": person, "key": key, "job": job, "digest": digest})
        return connection.execute(select(IDEMPOTENCY).where(IDEMPOTENCY.c.person == person, IDEMPOTENCY.c.key == key)).one()

    @reads
    def find_job(self, connection: Connection, person: str, key: str) -> str | None:
        """Return the job id under a person's key; None if the key was never used."""
        statement = select(IDEMPOTENCY.c.job).where(IDEMPOTENCY.c.person == person, IDEMPOTENCY.c.key == key)
        return connection.execute(statement).scalar()
