"""Indexes the ledger for the search: which words and names its entries have, from its first entry on. Consoles run it; workers need not know of it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.tables import LEDGER, SEARCH_NAMES, SEARCH_PROGRESS, SEARCH_WORDS
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.search import INDEXED_TYPES, index_terms

MAX_POSITIONS = 2_000
"""Positions of the ledger in one transaction: other writers wait for it."""

_PROGRESS = select(SEARCH_PROGRESS.c.position)
_NEWEST = select(func.coalesce(func.max(LEDGER.c.position), 0))
_ENTRIES = select(LEDGER.c.position, LEDGER.c.job, LEDGER.c.type, LEDGER.c.data).where(LEDGER.c.type.in_(INDEXED_TYPES))


class IndexProgress(NamedTuple):
    """How far the ledger is indexed, and where it ends."""

    position: int
    newest: int

    @property
    def is_complete(self) -> bool:
        return self.position >= self.newest

    @property
    def is_nearly_complete(self) -> bool:
        """Whether no more is missing than a transaction indexes: new entries are always missing for a moment."""
        return self.newest - self.position <= MAX_POSITIONS


def read_progress(connection: Connection) -> IndexProgress:
    """Return how far the ledger is indexed."""
    return IndexProgress(connection.execute(_PROGRESS).scalar() or 0, connection.execute(_NEWEST).scalar_one())


def index_entries(connection: Connection) -> IndexProgress:
    """Index the next MAX_POSITIONS positions. The transaction must be the only writer's, so that two consoles index nothing twice."""
    done, newest = read_progress(connection)
    until = min(newest, done + MAX_POSITIONS)
    if until == done:
        return IndexProgress(done, newest)
    rows = connection.execute(_ENTRIES.where(LEDGER.c.position > done, LEDGER.c.position <= until)).all()
    jobs = {row.job for row in rows}
    first = LEDGER.c.seq == 1
    places = {
        row.job: row.position for row in connection.execute(select(LEDGER.c.job, LEDGER.c.position).where(LEDGER.c.job.in_(jobs), first))
    }
    words: set[tuple[str, int]] = set()
    names: set[tuple[str, str, str]] = set()
    for row in rows:
        terms = index_terms(EventType(row.type), json.loads(row.data))
        words |= {(word, places[row.job]) for word in terms.words} | {(handle, row.position) for handle in terms.handles}
        names |= set(terms.names)
    _insert_new_rows(connection, SEARCH_WORDS, [{"word": word, "position": at} for word, at in sorted(words)])
    _insert_new_rows(connection, SEARCH_NAMES, [{"kind": kind, "name": name, "reader_id": reader} for kind, name, reader in sorted(names)])
    if connection.execute(update(SEARCH_PROGRESS).values(position=until)).rowcount == 0:
        insert_new(connection, SEARCH_PROGRESS, {"id": 1, "position": until})
    return IndexProgress(until, newest)


def _insert_new_rows(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    if rows:
        connection.execute(insert(table).on_conflict_do_nothing(), rows)
