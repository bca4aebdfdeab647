"""The digests under which an observer has found a live user. Written by the projection of `credential.found`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine, bindparam, select

from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.repository import Repository, reads
from justenough.adapters.store.tables import POSITIVE_CONTROLS

_FOUND_AT = select(POSITIVE_CONTROLS.c.found_at).where(POSITIVE_CONTROLS.c.digest == bindparam("which"))


class PositiveControlRepository(Repository):
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
