"""Claims: which one run of a job may issue credentials. A job id is claimed once, ever. No Vault, no Temporal."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import CLAIMS
from justenough.domain.core.base_model import Message

# Built once: it is read before each issue.
_CLAIM = select(CLAIMS).where(CLAIMS.c.job == bindparam("which"))


class SessionClaim(Message):
    """Who holds a job's one right to issue, and whether it is still held."""

    job: str
    owner: str | None
    """None where the claim was closed before anyone made it."""
    run: str | None
    open: bool
    renewed_at: datetime
    closed_at: datetime | None = None

    def is_held_by(self, owner: str) -> bool:
        """Whether the job's right to issue is this one's now."""
        return self.open and self.owner == owner


def claim_job(connection: Connection, job: str, *, run: str, owner: str, now: datetime) -> bool:
    """Claim a job id; False where it was ever claimed, or closed, before."""
    return insert_new(connection, CLAIMS, {"job": job, "run": run, "owner": owner, "renewed_at": now})


def renew_claim(connection: Connection, job: str, *, owner: str, now: datetime) -> bool:
    """Say that the owner is alive; False once the claim is closed or another's."""
    theirs = (CLAIMS.c.job == job) & (CLAIMS.c.owner == owner) & CLAIMS.c.closed_at.is_(None)
    return connection.execute(update(CLAIMS).where(theirs).values(renewed_at=now)).rowcount == 1


def close_claim(connection: Connection, job: str, *, now: datetime) -> None:
    """End the right to issue, for ever, even where nobody had it yet. Again is fine."""
    if not insert_new(connection, CLAIMS, {"job": job, "renewed_at": now, "closed_at": now}):
        still_open = (CLAIMS.c.job == job) & CLAIMS.c.closed_at.is_(None)
        connection.execute(update(CLAIMS).where(still_open).values(closed_at=now))


def claim_of(connection: Connection, job: str) -> SessionClaim | None:
    """Return the job's claim."""
    row = connection.execute(_CLAIM, {"which": job}).mappings().first()
    return SessionClaim(open=row["closed_at"] is None, **row) if row else None
