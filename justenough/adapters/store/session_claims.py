"""Claims: which run of a job may issue its credentials. Each job id can be claimed only once. No Vault, no Temporal.

A running job also has a place. The jobs of one launcher (a person, a trigger or a schedule) have a limited number of places, the launcher's
share, so that they leave room on the workers for the jobs of others.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, select, union_all, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, count_rows, reads, reads_snapshot, writes
from justenough.adapters.store.tables import CLAIMS, JOBS, LEDGER, PLACES
from justenough.adapters.store.wrapped_tokens import StoredWrappingToken, drop_tokens
from justenough.domain.core.base_model import Message
from justenough.domain.ledger.events import EventType

# Built once, because it runs before each credential is issued. A range of ids uses the index, however many entries the job has.
_STOP = select(LEDGER.c.id).where(LEDGER.c.id >= bindparam("first_stop"), LEDGER.c.id < bindparam("after_stops"))
_CLAIM = select(CLAIMS, _STOP.exists().label("stop_requested")).where(CLAIMS.c.job == bindparam("which"))
_HAS_OR_NEEDS_NO_PLACE = union_all(
    select(PLACES.c.job).where(PLACES.c.job == bindparam("which")),
    select(JOBS.c.id).where(JOBS.c.id == bindparam("which"), JOBS.c.ended_at.is_not(None)),
    select(CLAIMS.c.job).where(CLAIMS.c.job == bindparam("which"), CLAIMS.c.closed_at.is_not(None)),
)


class SessionClaim(Message):
    """A claim: the session that may issue a job's credentials, and whether it still may."""

    job: str
    owner: str | None
    """None if the claim was closed before any session claimed the job."""
    run: str | None
    open: bool
    renewed_at: datetime
    closed_at: datetime | None = None
    attempted_at: datetime | None = None
    """When a worker last began to revoke everything of the job. Unlike what Temporal reports, only a worker's attempt sets it."""
    stop_requested: bool = False
    """Whether the ledger has a person's request to cancel or kill the job."""

    def is_held_by(self, owner: str) -> bool:
        """Whether this owner is the job's session and may keep what it holds."""
        return self.open and self.owner == owner

    def may_issue(self, owner: str) -> bool:
        """Whether this owner may issue the job's credentials and start its process now."""
        return self.is_held_by(owner) and not self.stop_requested


class ClaimResult(StrEnum):
    CLAIMED = "claimed"
    ALREADY_RAN = "already_ran"
    NO_PLACE = "no_place"


class ClaimRepository(Repository):
    @writes
    def claim(self, connection: Connection, job: str, *, run: str, owner: str, launcher: str, places: int, now: datetime) -> ClaimResult:
        """Claim a job for one run if it has a place, or can take one as `take_place` does. Not claimed if it was claimed before or its claim is closed."""
        if not _take_place(connection, job, launcher, places):
            return ClaimResult.NO_PLACE
        is_new = insert_new(connection, CLAIMS, {"job": job, "run": run, "owner": owner, "renewed_at": now})
        return ClaimResult.CLAIMED if is_new else ClaimResult.ALREADY_RAN

    @writes
    def take_place(self, connection: Connection, job: str, *, launcher: str, places: int) -> bool:
        """Return whether the job has a place; take one if its launcher has fewer than `places` jobs with a place.

        A job that has ended needs none.
        """
        return _take_place(connection, job, launcher, places)

    @reads_snapshot
    def may_take_place(self, connection: Connection, job: str, *, launcher: str, places: int) -> bool:
        """Return whether the job has a place, needs none, or could take one now. Takes none."""
        return _has_or_needs_no_place(connection, job) or _has_free_place(connection, launcher, places)

    @writes
    def renew(self, connection: Connection, job: str, owner: str, now: datetime) -> bool:
        """Record that the owner is alive. False once the claim is closed or belongs to another owner."""
        theirs = (CLAIMS.c.job == job) & (CLAIMS.c.owner == owner) & CLAIMS.c.closed_at.is_(None)
        return connection.execute(update(CLAIMS).where(theirs).values(renewed_at=now)).rowcount == 1

    @reads
    def get(self, connection: Connection, job: str) -> SessionClaim | None:
        """Return the job's claim, and whether a stop is recorded; None if it was neither claimed nor closed."""
        stops = f"{job}/{EventType.STOP_REQUESTED.value}"
        # `0` follows `/`, which begins the rest of an id.
        row = connection.execute(_CLAIM, {"which": job, "first_stop": stops, "after_stops": f"{stops}0"}).mappings().first()
        return SessionClaim(open=row["closed_at"] is None, **row) if row else None

    @writes
    def close(self, connection: Connection, job: str, now: datetime) -> None:
        """Permanently close the job's claim so that no session can issue. Idempotent; works for unclaimed jobs too."""
        _close_claim(connection, job, now)

    @writes
    def end_issuing(self, connection: Connection, job: str, now: datetime) -> tuple[StoredWrappingToken, ...]:
        """Close the claim, record an attempt to revoke, and delete the job's wrapping tokens, in one transaction. Return the deleted tokens."""
        _close_claim(connection, job, now)
        connection.execute(update(CLAIMS).where(CLAIMS.c.job == job).values(attempted_at=now))
        return drop_tokens(connection, job)


def _close_claim(connection: Connection, job: str, now: datetime) -> None:
    """Close the job's claim, or record a closed one if the job was never claimed. The job also releases its place."""
    if not insert_new(connection, CLAIMS, {"job": job, "renewed_at": now, "closed_at": now}):
        still_open = (CLAIMS.c.job == job) & CLAIMS.c.closed_at.is_(None)
        connection.execute(update(CLAIMS).where(still_open).values(closed_at=now))
    connection.execute(delete(PLACES).where(PLACES.c.job == job))


def _take_place(connection: Connection, job: str, launcher: str, places: int) -> bool:
    if _has_or_needs_no_place(connection, job):
        return True
    # Only one transaction writes at a time, so that nobody else takes the last place meanwhile.
    return _has_free_place(connection, launcher, places) and insert_new(connection, PLACES, {"job": job, "account": launcher})


def _has_or_needs_no_place(connection: Connection, job: str) -> bool:
    return connection.execute(_HAS_OR_NEEDS_NO_PLACE, {"which": job}).first() is not None


def _has_free_place(connection: Connection, launcher: str, places: int) -> bool:
    return count_rows(connection, PLACES, PLACES.c.account == launcher) < places
