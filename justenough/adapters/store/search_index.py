"""Indexes the ledger for the search: records which words and names each entry has, from the first entry on. Only consoles run it."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Connection, Table, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import has_type, newest_position
from justenough.adapters.store.tables import LEDGER, SEARCH_NAMES, SEARCH_PROGRESS, SEARCH_WORDS
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.search import INDEXED_TYPES, index_terms

EVERYTHING_READER = ""
"""Stands for all people who may read everything, so that their search reads each name once."""
MAX_POSITIONS = 500
"""Maximum ledger positions per transaction, because other writers wait for it."""

_PROGRESS = select(SEARCH_PROGRESS.c.position)
_ENTRIES = select(LEDGER.c.position, LEDGER.c.job, LEDGER.c.seq, LEDGER.c.type, LEDGER.c.data).where(has_type(INDEXED_TYPES))


class IndexProgress(NamedTuple):
    """The last indexed position of the ledger, and its end."""

    position: int
    newest: int

    @property
    def is_complete(self) -> bool:
        return self.position >= self.newest

    @property
    def is_nearly_complete(self) -> bool:
        """Whether at most one transaction's entries are missing: new entries are always missing for a short time."""
        return self.newest - self.position <= MAX_POSITIONS


def read_progress(connection: Connection) -> IndexProgress:
    """Return how far the ledger is indexed."""
    return IndexProgress(connection.execute(_PROGRESS).scalar() or 0, newest_position(connection))


def index_entries(connection: Connection) -> IndexProgress:
    """Index the next MAX_POSITIONS positions. The transaction must be the only writer's, so that two consoles index nothing twice."""
    done, newest = read_progress(connection)
    until = min(newest, done + MAX_POSITIONS)
    if until == done:
        return IndexProgress(done, newest)
    rows = connection.execute(_ENTRIES.where(LEDGER.c.position > done, LEDGER.c.position <= until)).all()
    places = {row.job: row.position for row in rows if row.seq == 1}
    earlier = {row.job for row in rows} - places.keys()
    first = select(LEDGER.c.job, LEDGER.c.position).where(LEDGER.c.job.in_(earlier), LEDGER.c.seq == 1)
    places |= {row.job: row.position for row in connection.execute(first)}
    words: set[tuple[str, int]] = set()
    names: set[tuple[str, str, str]] = set()
    for row in rows:
        terms = index_terms(EventType(row.type), json.loads(row.data))
        words |= {(word, places[row.job]) for word in terms.words} | {(handle, row.position) for handle in terms.handles}
        names |= {(reader, kind, name) for kind, name, owner in terms.names for reader in (owner, EVERYTHING_READER)}
    _insert_new_rows(connection, SEARCH_WORDS, words)
    _insert_new_rows(connection, SEARCH_NAMES, names)
    if connection.execute(update(SEARCH_PROGRESS).values(position=until)).rowcount == 0:
        insert_new(connection, SEARCH_PROGRESS, {"id": 1, "position": until})
    return IndexProgress(until, newest)


def _insert_new_rows(connection: Connection, table: Table, rows: AbstractSet[tuple[Any, ...]]) -> None:
    """Insert rows, in the order of the table's columns, unless they exist."""
    if not rows:
        return
    ordered = sorted(rows)
    if connection.dialect.name == "postgresql":
        # One array for each column: a statement for each row would take several times as long.
        arrays = [bindparam(column.name, type_=ARRAY(column.type)) for column in table.columns]
        source = select(*(func.unnest(array) for array in arrays))
        values = {column.name: [row[at] for row in ordered] for at, column in enumerate(table.columns)}
        connection.execute(postgresql.insert(table).from_select(table.columns.keys(), source).on_conflict_do_nothing(), values)
    else:
        names = table.columns.keys()
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), [dict(zip(names, row, strict=True)) for row in ordered])
