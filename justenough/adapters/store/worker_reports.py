"""Records when a worker last ran a sweep, and whether each target of the catalog answered in it.

Temporal's record of sweeps proves nothing: anybody who can poll a task queue can answer in place of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, delete, not_, or_, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_all, fetch_first, reads, writes
from justenough.adapters.store.tables import SWEEPS, TARGET_CHECKS
from justenough.domain.readmodel.views import SweepView, TargetCheck

ONLY_ROW = 1
MAX_GAP = timedelta(seconds=30)
"""If no worker has swept for this long, the store may have been unavailable."""


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


def _steady_since(now: datetime) -> ColumnElement[datetime]:
    # A time in the future comes from a wrong clock, and would hide dead sessions from sweeps until then.
    return case((or_(SWEEPS.c.active_at < now - MAX_GAP, SWEEPS.c.steady_since > now), now), else_=SWEEPS.c.steady_since)
