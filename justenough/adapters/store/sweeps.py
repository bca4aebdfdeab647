"""Records when a worker last ran a sweep.

Temporal's record of sweeps proves nothing: anybody who can poll a task queue can answer in place of a worker.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, not_, or_, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_first, reads, writes
from justenough.adapters.store.tables import SWEEPS
from justenough.domain.readmodel.views import SweepView

ONLY_ROW = 1
MAX_GAP = timedelta(seconds=30)
"""If no worker has swept for this long, the store may have been unavailable."""


class SweepRepository(Repository):
    """The installation's last sweep."""

    @writes
    def begin(self, connection: Connection, *, now: datetime, by_clock: bool) -> None:
        """Record that a worker begins a sweep."""
        if not insert_new(connection, SWEEPS, {"id": ONLY_ROW, "active_at": now, "steady_since": now, "by_clock": by_clock}):
            connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now), by_clock=by_clock))

    @writes
    def begin_if_idle(self, connection: Connection, *, now: datetime, idle: timedelta) -> bool:
        """Record that a worker begins a sweep by its own clock, if no worker has swept for `idle`.

        If several workers call this, only one gets True.
        """
        if insert_new(connection, SWEEPS, {"id": ONLY_ROW, "active_at": now, "steady_since": now, "by_clock": True}):
            return True
        # A time in the future is a wrong clock's, and must not keep everybody from sweeping.
        busy = SWEEPS.c.active_at.between(now - idle, now + idle)
        begun = update(SWEEPS).where(not_(busy)).values(active_at=now, steady_since=_steady_since(now), by_clock=True)
        return connection.execute(begun).rowcount == 1

    @writes
    def renew(self, connection: Connection, *, now: datetime) -> None:
        """Record that the sweep is still running."""
        connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now)))

    @writes
    def end(self, connection: Connection, *, now: datetime) -> None:
        """Record that a sweep has ended and has checked every job that it could."""
        connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now), ended_at=now))

    @reads
    def last(self, connection: Connection) -> SweepView | None:
        """Return the last sweep; None if there never was one."""
        return fetch_first(connection, select(*(SWEEPS.c[name] for name in SweepView.model_fields)), SweepView)


def _steady_since(now: datetime) -> ColumnElement[datetime]:
    # A time in the future is a wrong clock's, and would hide dead sessions from sweeps until then.
    return case((or_(SWEEPS.c.active_at < now - MAX_GAP, SWEEPS.c.steady_since > now), now), else_=SWEEPS.c.steady_since)
