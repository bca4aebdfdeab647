"""Claims: which run of a job may issue its credentials. Each job id can be claimed only once. No Vault, no Temporal."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, reads, writes
from justenough.adapters.store.tables import CLAIMS
from justenough.adapters.store.wrapped_tokens import StoredWrappingToken, drop_tokens
from justenough.domain.core.base_model import Message

# Built once, because it runs before each credential is issued.
_CLAIM = select(CLAIMS).where(CLAIMS.c.job == bindparam("which"))


class SessionClaim(Message):
    """A claim: the session that may issue a job's credentials, and whether it still may."""

    job: str
    owner: str | None
    """None if the claim was closed before any session made it."""
    run: str | None
    open: bool
    renewed_at: datetime
    closed_at: datetime | None = None
    attempted_at: datetime | None = None
    """When a worker last began to revoke everything of the job. Unlike what Temporal reports, only a worker's attempt sets it."""

    def is_held_by(self, owner: str) -> bool:
        """Whether this owner may issue the job's credentials now."""
        return self.open and self.owner == owner


class ClaimRepository(Repository):
    """Claims by job."""

    @writes
    def claim(self, connection: Connection, job: str, *, run: str, owner: str, now: datetime) -> bool:
        """Claim a job for one run. False if the job was ever claimed, or its claim closed, before."""
        return insert_new(connection, CLAIMS, {"job": job, "run": run, "owner": owner, "renewed_at": now})

    @writes
    def renew(self, connection: Connection, job: str, owner: str, now: datetime) -> bool:
        """Record that the owner is alive. False once the claim is closed or belongs to another."""
        theirs = (CLAIMS.c.job == job) & (CLAIMS.c.owner == owner) & CLAIMS.c.closed_at.is_(None)
        return connection.execute(update(CLAIMS).where(theirs).values(renewed_at=now)).rowcount == 1

    @reads
    def get(self, connection: Connection, job: str) -> SessionClaim | None:
        """Return the job's claim; None if it was neither claimed nor closed."""
        row = connection.execute(_CLAIM, {"which": job}).mappings().first()
        return SessionClaim(open=row["closed_at"] is None, **row) if row else None

    @writes
    def close(self, connection: Connection, job: str, now: datetime) -> None:
        """Permanently close the job's claim so that no session can issue. Idempotent; works for unclaimed jobs too."""
        close_claim(connection, job, now)

    @writes
    def end_issuing(self, connection: Connection, job: str, now: datetime) -> tuple[StoredWrappingToken, ...]:
        """Close the claim, record an attempt to revoke, and delete the job's wrapping tokens, in one transaction. Return the deleted tokens."""
        close_claim(connection, job, now)
        connection.execute(update(CLAIMS).where(CLAIMS.c.job == job).values(attempted_at=now))
        return drop_tokens(connection, job)


def close_claim(connection: Connection, job: str, now: datetime) -> None:
    """Close the job's claim, or record a closed one if the job was never claimed."""
    if not insert_new(connection, CLAIMS, {"job": job, "renewed_at": now, "closed_at": now}):
        still_open = (CLAIMS.c.job == job) & CLAIMS.c.closed_at.is_(None)
        connection.execute(update(CLAIMS).where(still_open).values(closed_at=now))
