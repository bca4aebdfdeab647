"""Records whether each target of the catalog answered in the last sweep."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_all, reads, writes
from justenough.adapters.store.tables import TARGET_CHECKS
from justenough.domain.readmodel.views import TargetCheck


class TargetCheckRepository(Repository):
    """Targets by name."""

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
