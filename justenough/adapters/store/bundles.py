"""Bundles: the files of a job's workdir, by their digest. Not evidence; the ledger is."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, exists, select, update

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, count_rows, reads, writes
from justenough.adapters.store.tables import BUNDLES, ORDERS

_UNUSED = ~exists().where(ORDERS.c.bundle == BUNDLES.c.digest)
"""No job was ordered with the bundle."""


class BundleRepository(Repository):
    @writes
    def add(self, connection: Connection, digest: str, content: bytes, *, at: datetime, by: str | None = None) -> bool:
        """Store a bundle under its digest, uploaded by a person (entity id); return whether it is new.

        Content that is already stored stays unchanged.
        """
        upload = {"uploaded_at": at, "uploaded_by": by}
        is_new = insert_new(connection, BUNDLES, {"digest": digest, "content": content, **upload})
        if not is_new:
            connection.execute(update(BUNDLES).where(BUNDLES.c.digest == digest).values(upload))
        return is_new

    @reads
    def get(self, connection: Connection, digest: str) -> bytes | None:
        return connection.execute(select(BUNDLES.c.content).where(BUNDLES.c.digest == digest)).scalar()

    @reads
    def count_unused(self, connection: Connection, by: str, *, since: datetime) -> int:
        """Return how many bundles without a job a person (entity id) has uploaded since a time."""
        return count_rows(connection, BUNDLES, BUNDLES.c.uploaded_at > since, BUNDLES.c.uploaded_by == by, _UNUSED)

    @writes
    def prune(self, connection: Connection, *, before: datetime) -> int:
        """Delete the bundles that no job uses and that were uploaded before a time; return how many."""
        return connection.execute(delete(BUNDLES).where(BUNDLES.c.uploaded_at < before, _UNUSED)).rowcount
