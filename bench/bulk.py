"""Fast inserts into an empty store: drops its indexes and triggers, and creates them again at the end. For benchmarks only."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

COUNT_ENDED = "INSERT INTO ended_jobs (state, jobs) SELECT state, count(*) FROM jobs WHERE ended_at IS NOT NULL GROUP BY state"
SQLITE_OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
POSTGRES_INDEXES = (
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() "
    "AND indexname NOT IN (SELECT conname FROM pg_constraint)"
)

Rows = Sequence[tuple[Any, ...]]


class Loader:
    """Collects rows by table and inserts them at each flush."""

    def __init__(self, connection: sqlite3.Connection | psycopg.Connection[Any], columns: Mapping[str, Sequence[str]]) -> None:
        self._connection, self._columns = connection, columns
        self._rows: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def add(self, table: str, rows: Rows) -> None:
        """Add rows to the next flush."""
        self._rows[table] += rows

    def flush(self) -> None:
        """Insert the collected rows."""
        for table, rows in self._rows.items():
            names = self._columns[table]
            if isinstance(self._connection, sqlite3.Connection):
                quoted = ",".join(f'"{name}"' for name in names)
                self._connection.executemany(f"INSERT INTO {table} ({quoted}) VALUES ({','.join('?' * len(names))})", rows)
                continue
            copied = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names)))
            with self._connection.cursor().copy(copied) as copy:
                for row in rows:
                    copy.write_row(row)
        self._rows.clear()


@contextmanager
def bulk_loader(url: str, columns: Mapping[str, Sequence[str]]) -> Iterator[Loader]:
    """Yield a loader for these columns of an empty store."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with _sqlite_loader(str(parsed.database), columns) as loader:
            yield loader
    else:
        with _postgres_loader(parsed.set(drivername="postgresql").render_as_string(hide_password=False), columns) as loader:
            yield loader


@contextmanager
def _sqlite_loader(path: str, columns: Mapping[str, Sequence[str]]) -> Iterator[Loader]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        objects = connection.execute(SQLITE_OBJECTS).fetchall()
        for kind, name, _ in objects:
            connection.execute(f"DROP {kind} {name}")
        yield Loader(connection, columns)
        for _, _, statement in objects:
            connection.execute(statement)
        connection.execute(COUNT_ENDED)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _postgres_loader(url: str, columns: Mapping[str, Sequence[str]]) -> Iterator[Loader]:
    options = "-c timezone=UTC -c synchronous_commit=off -c maintenance_work_mem=512MB"
    with psycopg.connect(url, options=options, autocommit=True) as connection:
        with connection.transaction():
            indexes = connection.execute(POSTGRES_INDEXES).fetchall()
            for name, _ in indexes:
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            yield Loader(connection, columns)
            for _, definition in indexes:
                connection.execute(sql.SQL(definition))
            connection.execute(COUNT_ENDED)
        # A server does this by itself, but later.
        connection.execute("VACUUM ANALYZE")
