"""What jobs bring along and leave: their bundles, their output, and the idempotency keys of their orders. Not evidence; the ledger is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, count_rows, fetch_all, reads, writes
from justenough.adapters.store.tables import BUNDLES, IDEMPOTENCY, LOG_SIZES, LOGS, ORDERS
from justenough.domain.core.errors import Conflict
from justenough.domain.ledger.hash_chain import to_storable
from justenough.domain.readmodel.views import LogChunk

MAX_LOG_BYTES = 10 * 1024 * 1024
"""Maximum bytes of UTF-8 that the store keeps of a job's output."""
TRUNCATION_LINE = "log truncated\n"
_UNUSED = ~exists().where(ORDERS.c.bundle == BUNDLES.c.digest)
"""No job was ordered with the bundle."""


class BundleRepository(Repository):
    @writes
    def add(self, connection: Connection, digest: str, content: bytes, *, at: datetime, by: str | None = None) -> bool:
        """Store a bundle under its digest, uploaded by a person (entity id); return whether it is new.

        Content that is already stored stays unchanged.
        """
        upload = {"uploaded_at": at, "uploaded_by": by}
        is_new = insert_new(connection, BUNDLES, {"digest": digest, "content": content, **upload})
        if not is_new:
            connection.execute(update(BUNDLES).where(BUNDLES.c.digest == digest).values(upload))
        return is_new

    @reads
    def get(self, connection: Connection, digest: str) -> bytes | None:
        return connection.execute(select(BUNDLES.c.content).where(BUNDLES.c.digest == digest)).scalar()

    @reads
    def count_unused(self, connection: Connection, by: str, *, since: datetime) -> int:
        """Return how many bundles without a job a person (entity id) has uploaded since a time."""
        return count_rows(connection, BUNDLES, BUNDLES.c.uploaded_at > since, BUNDLES.c.uploaded_by == by, _UNUSED)

    @writes
    def prune(self, connection: Connection, *, before: datetime) -> int:
        """Delete the bundles that no job uses and that were uploaded before a time; return how many."""
        return connection.execute(delete(BUNDLES).where(BUNDLES.c.uploaded_at < before, _UNUSED)).rowcount


class LogRepository(Repository):
    @writes
    def append(self, connection: Connection, job: str, seq: int, text: str, at: datetime) -> None:
        """Store one chunk; idempotent. Past MAX_LOG_BYTES the log ends with the line `log truncated`."""
        insert_new(connection, LOG_SIZES, {"job": job, "size": 0})
        stored: int = connection.execute(select(LOG_SIZES.c.size).where(LOG_SIZES.c.job == job).with_for_update()).scalar_one()
        if stored > MAX_LOG_BYTES:
            return
        chunk = to_storable(text)
        size = len(chunk.encode())
        if stored + size > MAX_LOG_BYTES:
            chunk = chunk.encode()[: MAX_LOG_BYTES - stored].decode(errors="ignore")
            chunk += f"\n{TRUNCATION_LINE}" if chunk and not chunk.endswith("\n") else TRUNCATION_LINE
            size = MAX_LOG_BYTES - stored + 1
        if insert_new(connection, LOGS, {"job": job, "seq": seq, "at": at, "text": chunk}):
            connection.execute(update(LOG_SIZES).where(LOG_SIZES.c.job == job).values(size=stored + size))

    @reads
    def chunks(self, connection: Connection, job: str, after_seq: int = -1, limit: int = 1000) -> tuple[LogChunk, ...]:
        """Return the chunks after a sequence number, in order."""
        theirs = select(LOGS).where(LOGS.c.job == job, LOGS.c.seq > after_seq)
        return fetch_all(connection, theirs.order_by(LOGS.c.seq).limit(limit), LogChunk)

    @reads
    def last_chunks(self, connection: Connection, job: str, limit: int = 100) -> tuple[LogChunk, ...]:
        """Return the last chunks, in order."""
        newest = select(LOGS).where(LOGS.c.job == job).order_by(LOGS.c.seq.desc()).limit(limit)
        return fetch_all(connection, newest, LogChunk)[::-1]


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
