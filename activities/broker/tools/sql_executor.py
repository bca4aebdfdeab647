"""Runs one statement on PostgreSQL as the user that was lent for it. Parameters are bound; time, rows and bytes are bounded; reading cannot write."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from activities.broker.tools.executors import Result, failure
from justenough.domain.tools.definitions import Sql

CONNECT_TIMEOUT_S = 5
ROLLBACK_CLASS = "40"
"""PostgreSQL's class of errors that say that a transaction was rolled back."""
EFFECT_UNKNOWN = "whether anything was changed is not known"

Connection = psycopg.AsyncConnection[dict[str, Any]]
Rows = psycopg.AsyncCursor[dict[str, Any]]


class _ResultTooLarge(Exception):
    """More came than may be passed on."""


async def run(sql: Sql, values: Mapping[str, Any], fields: Mapping[str, str], *, writes: bool) -> Result:
    """Return what the statement gave: rows as JSON, or how many it changed. Raises nothing that the database can bring about.

    What writes and returns more than may be passed on is undone; what reads is cut.
    """
    if not {"username", "password"} <= fields.keys():
        return failure("the credential is no database login: it has no username and password")
    # Whether something may have been: what is cut off while it is committed may be there, or not. What the database itself cancels is undone.
    written = False
    try:
        async with asyncio.timeout(sql.timeout + CONNECT_TIMEOUT_S), await _connect(sql, fields) as connection:
            written = writes
            return await _execute(connection, sql, values, writes=writes)
    except (TimeoutError, psycopg.errors.QueryCanceled) as error:
        known = isinstance(error, psycopg.errors.QueryCanceled) or not written
        return failure(f"the database took longer than {sql.timeout} s; {'nothing was changed' if known else EFFECT_UNKNOWN}")
    except _ResultTooLarge:
        return failure(f"it returned more than {sql.rows} rows or {sql.answer:,} bytes, and was undone")
    except psycopg.Error as error:
        return failure(_error_text(error, written=written))


def _error_text(error: psycopg.Error, *, written: bool) -> str:
    """Return what is told of an error of the database's, or of the way to it."""
    # A deadlock, say, is an answer: it is undone, and its text names nobody.
    undone = (error.sqlstate or "").startswith(ROLLBACK_CLASS)
    if isinstance(error, psycopg.OperationalError) and not undone:
        # Its text names host and user.
        return f"the database does not answer ({error.sqlstate or 'no connection'})" + (f"; {EFFECT_UNKNOWN}" if written else "")
    return f"the database refuses it: {error.diag.message_primary or type(error).__name__} ({error.sqlstate or '-'})"


async def _connect(sql: Sql, fields: Mapping[str, str]) -> Connection:
    options = f"-c statement_timeout={sql.timeout * 1000} -c idle_in_transaction_session_timeout={(sql.timeout + CONNECT_TIMEOUT_S) * 1000}"
    login = {"user": fields["username"], "password": fields["password"]}
    where = make_conninfo(sql.dsn, **login, connect_timeout=CONNECT_TIMEOUT_S, options=options, application_name="justenough-tool")
    return await psycopg.AsyncConnection.connect(where, row_factory=dict_row)


async def _execute(connection: Connection, sql: Sql, values: Mapping[str, Any], *, writes: bool) -> Result:
    bound = {name: Jsonb(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    await connection.set_read_only(not writes)
    return await (_write if writes else _read)(connection.cursor(), sql, bound)


async def _read(cursor: Rows, sql: Sql, values: Mapping[str, Any]) -> Result:
    """Return the first rows. One is held at a time, and the rest is never fetched."""
    taken = _BoundedRows(sql)
    # Closed here and not whenever it is collected: closing it is what stops the database.
    async with contextlib.aclosing(cast("AsyncGenerator[dict[str, Any]]", cursor.stream(sql.statement.encode(), values))) as rows:
        async for row in rows:
            if not taken.add(row):
                return Result(_json({"rows": taken.rows, "cut": True}), cut=True)
    return Result(_json({"rows": taken.rows}))


async def _write(cursor: Rows, sql: Sql, values: Mapping[str, Any]) -> Result:
    """Return what the statement returns, or how many rows it changed."""
    await cursor.execute(sql.statement.encode(), values)
    if cursor.description is None:
        return Result(_json({"changed": cursor.rowcount}))
    taken = _BoundedRows(sql)
    async for row in cursor:
        if not taken.add(row):
            raise _ResultTooLarge
    return Result(_json({"rows": taken.rows}))


class _BoundedRows:
    """Rows, for as long as they are not too many."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._size = 0
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> bool:
        """Take a row; False where it is one too many."""
        self._size += len(_json(row)) + 2
        if len(self.rows) >= self._sql.rows or self._size > self._sql.answer:
            return False
        self.rows.append(row)
        return True


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")
