"""The workers' reports: which version and which configuration each worker uses."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, fetch_all, reads, writes
from justenough.adapters.store.tables import WORKERS
from justenough.domain.readmodel.views import WorkerView

KEPT_FOR = timedelta(days=1)
"""How long a worker that has stopped reporting stays in the table."""


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
