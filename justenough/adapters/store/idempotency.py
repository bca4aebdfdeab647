"""Idempotency keys: which job each of a person's keys stands for."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, reads, writes
from justenough.adapters.store.tables import IDEMPOTENCY
from justenough.domain.core.errors import Conflict


class IdempotencyRepository(Repository):
    def remember(self, person: str, key: str, job: str, digest: str) -> str:
        """Return the job id under a person's key: `job` if the key is new. Raises Conflict if the key was used with another digest."""
        known, known_digest = self._insert_or_get(person, key, job, digest)
        if known_digest != digest:
            message = f"this idempotency key was used for another order: job {known}"
            raise Conflict(message)
        return known

    @writes
    def _insert_or_get(self, connection: Connection, person: str, key: str, job: str, digest: str) -> tuple[str, str]:
        insert_new(connection, IDEMPOTENCY, {"person": person, "key": key, "job": job, "digest": digest})
        row = connection.execute(select(IDEMPOTENCY.c.job, IDEMPOTENCY.c.digest).where(*_is_key(person, key))).one()
        return row.job, row.digest

    @reads
    def find_job(self, connection: Connection, person: str, key: str) -> str | None:
        """Return the job id under a person's key; None if the key was never used."""
        return connection.execute(select(IDEMPOTENCY.c.job).where(*_is_key(person, key))).scalar()


def _is_key(person: str, key: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return IDEMPOTENCY.c.person == person, IDEMPOTENCY.c.key == key
