"""What comes along with a job: bundles, output, idempotency keys. Nothing here is evidence; the ledger is."""

from __future__ import annotations

from sqlalchemy import Connection, select

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import BUNDLES


def put_bundle(connection: Connection, digest: str, content: bytes) -> None:
    """Keep a bundle by its digest; what is there already stays."""
    insert_new(connection, BUNDLES, {"digest": digest, "content": content})


def bundle(connection: Connection, digest: str) -> bytes | None:
    """Return a bundle's content."""
    return connection.execute(select(BUNDLES.c.content).where(BUNDLES.c.digest == digest)).scalar()
