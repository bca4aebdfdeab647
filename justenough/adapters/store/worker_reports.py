"""What workers report: their versions and configurations, when one last ran a sweep, which targets answered in it, and where they found users.

Temporal's record of sweeps proves nothing: anybody who can poll a task queue can answer in place of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, case, delete, not_, or_, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.repository import Repository, fetch_all, fetch_first, reads, writes
from justenough.adapters.store.tables import POSITIVE_CONTROLS, SWEEPS, TARGET_CHECKS, WORKERS
from justenough.domain.readmodel.views import SweepView, TargetCheck, WorkerView

ONLY_ROW = 1
MAX_GAP = timedelta(seconds=30)
"""If no worker has swept for this long, the store may have been unavailable."""
KEPT_FOR = timedelta(days=1)
"""How long a worker that has stopped reporting stays in the table."""

_FOUND_AT = select(POSITIVE_CONTROLS.c.found_at).where(POSITIVE_CONTROLS.c.digest == bindparam("which"))


class WorkerRepository(Repository):
    @writes
    def report(self, connection: Connection, worker: WorkerView) -> None:
        """Record a worker's report about itself, and drop workers that have been silent for KEPT_FOR."""
        row = worker.model_dump()
        if connection.execute(update(WORKERS).where(WORKERS.c.name == worker.name).values(row)).rowcount == 0:
            insert_new(connection, WORKERS, row)
            connection.execute(delete(WORKERS).where(WORKERS.c.last_seen < worker.last_seen - KEPT_FOR))

    @writes
    def forget(self, connection: Connection, name: str) -> None:
        """Remove a worker that shuts down cleanly."""
        connection.execute(delete(WORKERS).where(WORKERS.c.name == name))

    @reads
    def seen_since(self, connection: Connection, since: datetime) -> tuple[WorkerView, ...]:
        """Return the workers that have reported since this time, by name."""
        return fetch_all(connection, select(WORKERS).where(WORKERS.c.last_seen >= since).order_by(WORKERS.c.name), WorkerView)


class SweepRepository(Repository):
    @writes
    def begin(self, connection: Connection, *, now: datetime, by_clock: bool) -> None:
        begun = update(SWEEPS).values(active_at=now, steady_since=_steady_since(now), by_clock=by_clock)
        if connection.execute(begun).rowcount == 0:
            insert_new(connection, SWEEPS, {"id": ONLY_ROW, "active_at": now, "steady_since": now, "by_clock": by_clock})

    @writes
    def begin_if_idle(self, connection: Connection, *, now: datetime, idle: timedelta) -> bool:
        """Record that a worker begins a sweep by its own clock, if no worker has swept for `idle`.

        If several workers call this, only one gets True.
        """
        # A time in the future comes from a wrong clock, and must not keep everybody from sweeping.
        busy = SWEEPS.c.active_at.between(now - idle, now + idle)
        begun = update(SWEEPS).where(not_(busy)).values(active_at=now, steady_since=_steady_since(now), by_clock=True)
        first = {"id": ONLY_ROW, "active_at": now, "steady_since": now, "by_clock": True}
        return connection.execute(begun).rowcount == 1 or insert_new(connection, SWEEPS, first)

    @writes
    def renew(self, connection: Connection, *, now: datetime) -> None:
        connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now)))

    @writes
    def end(self, connection: Connection, *, now: datetime) -> None:
        """Record that a sweep has ended and has checked every job that it could."""
        connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now), ended_at=now))

    @reads
    def last(self, connection: Connection) -> SweepView | None:
        return fetch_first(connection, select(*(SWEEPS.c[name] for name in SweepView.model_fields)), SweepView)


class TargetCheckRepository(Repository):
    @writes
    def record(self, connection: Connection, checks: Sequence[TargetCheck]) -> None:
        """Replace the checks of all targets. A target with an unchanged result keeps the time of the first such result."""
        before = {check.name: check for check in fetch_all(connection, select(TARGET_CHECKS), TargetCheck)}
        connection.execute(delete(TARGET_CHECKS))
        for check in checks:
            old = before.get(check.name)
            since = old.since if old and (old.failure is None) == (check.failure is None) else check.since
            insert_new(connection, TARGET_CHECKS, check.model_dump() | {"since": since})

    @reads
    def all(self, connection: Connection) -> tuple[TargetCheck, ...]:
        """Return every target, by name."""
        return fetch_all(connection, select(TARGET_CHECKS).order_by(TARGET_CHECKS.c.name), TargetCheck)


class PositiveControlRepository(Repository):
    """The digests under which an observer has found a live user. Written by the projection of `credential.found`."""

    def __init__(self, engine: Engine, commits: GroupCommitter) -> None:
        super().__init__(engine, commits)
        self._known: dict[str, datetime] = {}
        """Results that were already read: a control that was observed stays observed."""

    def found_at(self, digest: str) -> datetime | None:
        """Return when an observer first found a live user under this digest; None if none ever did."""
        if digest not in self._known and (found := self._read(digest)) is not None:
            self._known[digest] = found
        return self._known.get(digest)

    @reads
    def _read(self, connection: Connection, digest: str) -> datetime | None:
        return connection.execute(_FOUND_AT, {"which": digest}).scalar()


def _steady_since(now: datetime) -> ColumnElement[datetime]:
    # A time in the future comes from a wrong clock, and would hide dead sessions from sweeps until then.
    return case((or_(SWEEPS.c.active_at < now - MAX_GAP, SWEEPS.c.steady_since > now), now), else_=SWEEPS.c.steady_since)
