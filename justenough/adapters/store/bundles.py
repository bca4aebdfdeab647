"""Bundles: the files of a job's workdir, by their digest. Not evidence; the ledger is."""

from __future__ import annotations

from sqlalchemy import Connection, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import Repository, reads, writes
from justenough.adapters.store.tables import BUNDLES


class BundleRepository(Repository):
    @writes
    def add(self, connection: Connection, digest: str, content: bytes) -> None:
        """Store a bundle under its digest. A bundle that is already stored stays as it is."""
        insert_new(connection, BUNDLES, {"digest": digest, "content": content})

    @reads
    def get(self, connection: Connection, digest: str) -> bytes | None:
        """Return a bundle's content."""
        return connection.execute(select(BUNDLES.c.content).where(BUNDLES.c.digest == digest)).scalar()
