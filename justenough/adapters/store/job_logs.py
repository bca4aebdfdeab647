"""What jobs print: capped, in order."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import LOG_SIZES, LOGS
from justenough.domain.ledger.hash_chain import storable
from justenough.domain.readmodel.views import LogChunk

LOG_CAP = 10 * 1024 * 1024
"""Bytes of UTF-8 that are kept of a job's output."""


TRUNCATED = "log truncated\n"


def append_log(connection: Connection, job: str, *, seq: int, text: str, at: datetime) -> None:
    """Keep one chunk; past the cap the log ends with the line `log truncated`."""
    insert_new(connection, LOG_SIZES, {"job": job, "size": 0})
    kept: int = connection.execute(select(LOG_SIZES.c.size).where(LOG_SIZES.c.job == job).with_for_update()).scalar_one()
    if kept > LOG_CAP:
        return
    chunk = storable(text)
    size = len(chunk.encode())
    if kept + size > LOG_CAP:
        chunk = _ended(chunk.encode()[: LOG_CAP - kept].decode(errors="ignore"))
        size = LOG_CAP - kept + 1
    if insert_new(connection, LOGS, {"job": job, "seq": seq, "at": at, "text": chunk}):
        connection.execute(update(LOG_SIZES).where(LOG_SIZES.c.job == job).values(size=kept + size))


def logs(connection: Connection, job: str, *, after_seq: int, limit: int) -> tuple[LogChunk, ...]:
    """Return chunks after a sequence number, in order."""
    wanted = select(LOGS.c.seq, LOGS.c.at, LOGS.c.text).where(LOGS.c.job == job, LOGS.c.seq > after_seq).order_by(LOGS.c.seq).limit(limit)
    return tuple(LogChunk(**row) for row in connection.execute(wanted).mappings())


def last_logs(connection: Connection, job: str, *, limit: int) -> tuple[LogChunk, ...]:
    """Return the last chunks, in order."""
    wanted = select(LOGS.c.seq, LOGS.c.at, LOGS.c.text).where(LOGS.c.job == job).order_by(LOGS.c.seq.desc()).limit(limit)
    return tuple(LogChunk(**row) for row in reversed(connection.execute(wanted).mappings().all()))


def _ended(text: str) -> str:
    return f"{text}\n{TRUNCATED}" if text and not text.endswith("\n") else f"{text}{TRUNCATED}"
