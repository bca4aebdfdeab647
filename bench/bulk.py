"""Many rows into an empty store at once: without indexes and triggers, which are made again at the end as they were. For measurements alone."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

COUNT_ENDED = "INSERT INTO ended_jobs (state, jobs) SELECT state, count(*) FROM jobs WHERE ended_at IS NOT NULL GROUP BY state"

Rows = Sequence[tuple[Any, ...]]


class Loader(Protocol):
    """Takes rows."""

    def add(self, table: str, rows: Rows) -> None:
        """Keep rows for the next flush."""

    def flush(self) -> None:
        """Insert what is kept."""


@contextmanager
def opened(url: str, columns: Mapping[str, Sequence[str]]) -> Iterator[Loader]:
    """Give what inserts rows of these columns into an empty store."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with _sqlite(str(parsed.database), columns) as loader:
            yield loader
    else:
        plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        with _postgres(plain, columns) as loader:
            yield loader


class _Kept:
    def __init__(self) -> None:
        self.rows: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def add(self, table: str, rows: Rows) -> None:
        self.rows[table] += rows


class _Lite(_Kept):
    def __init__(self, connection: sqlite3.Connection, columns: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._connection, self._columns = connection, columns

    def flush(self) -> None:
        for table, rows in self.rows.items():
            names = self._columns[table]
            self._connection.executemany(f"INSERT INTO {table} ({','.join(_quoted(names))}) VALUES ({','.join('?' * len(names))})", rows)
        self.rows.clear()


@contextmanager
def _sqlite(path: str, columns: Mapping[str, Sequence[str]]) -> Iterator[Loader]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        made = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        ).fetchall()
        for kind, name, _ in made:
            connection.execute(f"DROP {kind} {name}")
        yield _Lite(connection, columns)
        for _, _, statement in made:
            connection.execute(statement)
        connection.execute(COUNT_ENDED)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Postgres(_Kept):
    def __init__(self, connection: psycopg.Connection[Any], columns: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._connection, self._columns = connection, columns

    def flush(self) -> None:
        for table, rows in self.rows.items():
            names = sql.SQL(", ").join(map(sql.Identifier, self._columns[table]))
            with self._connection.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)) as copy:
                for row in rows:
                    copy.write_row(row)
        self.rows.clear()


@contextmanager
def _postgres(url: str, columns: Mapping[str, Sequence[str]]) -> Iterator[Loader]:
    with psycopg.connect(
        url, options="-c timezone=UTC -c synchronous_commit=off -c maintenance_work_mem=512MB", autocommit=True
    ) as connection:
        with connection.transaction():
            found = connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() "
                "AND indexname NOT IN (SELECT conname FROM pg_constraint)"
            ).fetchall()
            for name, _ in found:
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            yield _Postgres(connection, columns)
            for _, definition in found:
                connection.execute(sql.SQL(definition))
            connection.execute(COUNT_ENDED)
        # As a server does by itself, sooner or later.
        connection.execute("VACUUM ANALYZE")


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]
