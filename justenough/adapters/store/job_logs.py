"""The output of jobs: capped, in order."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_all, reads, writes
from justenough.adapters.store.tables import LOG_SIZES, LOGS
from justenough.domain.ledger.hash_chain import to_storable
from justenough.domain.readmodel.views import LogChunk

MAX_LOG_BYTES = 10 * 1024 * 1024
"""Maximum bytes of UTF-8 that the store keeps of a job's output."""
TRUNCATION_LINE = "log truncated\n"


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
