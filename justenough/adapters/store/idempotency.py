"""Idempotency keys and the answers they were given."""

from __future__ import annotations

from sqlalchemy import Connection, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import IDEMPOTENCY
from justenough.domain.core.errors import Conflict


def remember_key(connection: Connection, *, person: str, key: str, job: str, digest: str) -> tuple[str, str]:
    """Return the job id and digest that stand under a person's key: the given ones where it is new."""
    insert_new(connection, IDEMPOTENCY, {"person": person, "key": key, "job": job, "digest": digest})
    theirs = (IDEMPOTENCY.c.person == person) & (IDEMPOTENCY.c.key == key)
    row = connection.execute(select(IDEMPOTENCY.c.job, IDEMPOTENCY.c.digest).where(theirs)).one()
    return row.job, row.digest


def job_by_key(connection: Connection, *, person: str, key: str) -> str | None:
    """Return the job id that stands under a person's key; None where there is none."""
    theirs = (IDEMPOTENCY.c.person == person) & (IDEMPOTENCY.c.key == key)
    return connection.execute(select(IDEMPOTENCY.c.job).where(theirs)).scalar()


def require_same_order(remembered: tuple[str, str], digest: str) -> str:
    """Return the job id found under a key. Raises Conflict where it was used for something else."""
    if remembered[1] != digest:
        message = f"this idempotency key was used for another order: job {remembered[0]}"
        raise Conflict(message)
    return remembered[0]
