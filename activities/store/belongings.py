"""What comes along with a job: bundles, output, idempotency keys. Nothing here is evidence; the ledger is."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from activities.store.engine import insert_new
from activities.store.tables import BUNDLES, IDEMPOTENCY, LOG_SIZES, LOGS
from justenough.errors import Conflict
from justenough.ledger import storable
from justenough.views import LogChunk

LOG_CAP = 10 * 1024 * 1024
"""Bytes of UTF-8 that are kept of a job's output."""
TRUNCATED = "log truncated\n"


def put_bundle(connection: Connection, digest: str, content: bytes) -> None:
    """Keep a bundle by its digest; what is there already stays."""
    insert_new(connection, BUNDLES, {"digest": digest, "content": content})


def bundle(connection: Connection, digest: str) -> bytes | None:
    """Return a bundle's content."""
    return connection.execute(select(BUNDLES.c.content).where(BUNDLES.c.digest == digest)).scalar()


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


def remember(connection: Connection, *, person: str, key: str, job: str, digest: str) -> tuple[str, str]:
    """Return the job id and digest that stand under a person's key: the given ones where it is new."""
    insert_new(connection, IDEMPOTENCY, {"person": person, "key": key, "job": job, "digest": digest})
    theirs = (IDEMPOTENCY.c.person == person) & (IDEMPOTENCY.c.key == key)
    row = connection.execute(select(IDEMPOTENCY.c.job, IDEMPOTENCY.c.digest).where(theirs)).one()
    return row.job, row.digest


def remembered(connection: Connection, *, person: str, key: str) -> str | None:
    """Return the job id that stands under a person's key; None where there is none."""
    theirs = (IDEMPOTENCY.c.person == person) & (IDEMPOTENCY.c.key == key)
    return connection.execute(select(IDEMPOTENCY.c.job).where(theirs)).scalar()


def same(found: tuple[str, str], digest: str) -> str:
    """Return the job id found under a key. Raises Conflict where it was used for something else."""
    if found[1] != digest:
        message = f"this idempotency key was used for another order: job {found[0]}"
        raise Conflict(message)
    return found[0]


def _ended(text: str) -> str:
    return f"{text}\n{TRUNCATED}" if text and not text.endswith("\n") else f"{text}{TRUNCATED}"
