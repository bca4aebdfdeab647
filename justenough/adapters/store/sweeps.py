"""Records when a worker last ran a sweep.

Temporal's record of sweeps proves nothing: anybody who can poll a task queue can answer in place of a worker.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, false, not_, or_, select, true, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_first, reads, writes
from justenough.adapters.store.tables import SWEEPS
from justenough.domain.readmodel.views import SweepView

ONLY_ROW = 1
MAX_GAP = timedelta(seconds=30)
"""If no worker has swept for this long, the store may have been unavailable."""
MAX_LOOK_INTERVAL = timedelta(seconds=3)
"""How often a worker that watches sweeps looks at them, at least."""


class WatchedSweep(NamedTuple):
    """What a worker has seen of the last sweep: another worker's clock may differ, but that worker records its progress meanwhile."""

    active_at: datetime
    unchanged_for: timedelta
    """By a clock that nobody sets."""


class SweepRepository(Repository):
    """The installation's last sweep."""

    @writes
    def begin(self, connection: Connection, *, now: datetime, by_clock: bool, watched: WatchedSweep | None = None) -> None:
        """Record that a worker begins a sweep."""
        if not insert_new(connection, SWEEPS, {"id": ONLY_ROW, "active_at": now, "steady_since": now, "by_clock": by_clock}):
            connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now, watched), by_clock=by_clock))

    @writes
    def begin_if_idle(self, connection: Connection, *, now: datetime, idle: timedelta, watched: WatchedSweep | None = None) -> bool:
        """Record that a worker begins a sweep by its own clock, if no worker has swept for `idle`.

        If several workers call this, only one gets True.
        """
        if insert_new(connection, SWEEPS, {"id": ONLY_ROW, "active_at": now, "steady_since": now, "by_clock": True}):
            return True
        # A time in the future is a wrong clock's, and must not keep everybody from sweeping.
        busy = SWEEPS.c.active_at.between(now - idle, now + idle)
        due = update(SWEEPS).where(not_(busy), _is_unchanged(watched, idle))
        begun = due.values(active_at=now, steady_since=_steady_since(now, watched), by_clock=True)
        return connection.execute(begun).rowcount == 1

    @writes
    def renew(self, connection: Connection, *, now: datetime, watched: WatchedSweep | None = None) -> None:
        """Record that the sweep is still running."""
        connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now, watched)))

    @writes
    def end(self, connection: Connection, *, now: datetime, watched: WatchedSweep | None = None) -> None:
        """Record that a sweep has ended and has checked every job that it could."""
        connection.execute(update(SWEEPS).values(active_at=now, steady_since=_steady_since(now, watched), ended_at=now))

    @reads
    def last(self, connection: Connection) -> SweepView | None:
        """Return the last sweep; None if there never was one."""
        return fetch_first(connection, select(*(SWEEPS.c[name] for name in SweepView.model_fields)), SweepView)


def _steady_since(now: datetime, watched: WatchedSweep | None) -> ColumnElement[datetime]:
    is_after_gap = and_(SWEEPS.c.active_at < now - MAX_GAP, _is_unchanged(watched, MAX_GAP))
    # A time in the future is a wrong clock's, and would hide dead sessions from sweeps until then.
    return case((or_(is_after_gap, SWEEPS.c.steady_since > now), now), else_=SWEEPS.c.steady_since)


def _is_unchanged(watched: WatchedSweep | None, least: timedelta) -> ColumnElement[bool]:
    """Whether a worker that watches has seen no progress for so long. True for one that has not watched yet: it knows only its own clock."""
    if watched is None:
        return true()
    return SWEEPS.c.active_at == watched.active_at if watched.unchanged_for >= least - MAX_LOOK_INTERVAL else false()
