"""Runs a tool's statement on PostgreSQL as the credential's user. Parameters are bound; time, rows and bytes are limited; reads are read-only."""

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
"""PostgreSQL's class of errors after which the transaction was rolled back."""
EFFECT_UNKNOWN = "whether anything was changed is not known"

Rows = psycopg.AsyncCursor[dict[str, Any]]


class _ResultTooLarge(Exception):
    """The statement returned more than may be passed on."""


async def run(sql: Sql, values: Mapping[str, Any], fields: Mapping[str, str], *, writes: bool) -> Result:
    """Return the statement's result: rows as JSON, or how many it changed. Database errors become a failed `Result`; nothing is raised for them.

    If the result is too large, a write is rolled back and a read is truncated.
    """
    if not {"username", "password"} <= fields.keys():
        return failure("the credential is no database login: it has no username and password")
    options = f"-c statement_timeout={sql.timeout * 1000} -c idle_in_transaction_session_timeout={(sql.timeout + CONNECT_TIMEOUT_S) * 1000}"
    login = {"user": fields["username"], "password": fields["password"]}
    bound = {name: Jsonb(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    # Whether something may have been written: a connection that breaks during the commit leaves that unknown. What the database itself
    # cancels is rolled back.
    written = False
    try:
        conninfo = make_conninfo(sql.dsn, **login, connect_timeout=CONNECT_TIMEOUT_S, options=options, application_name="justenough-tool")
        connecting = psycopg.AsyncConnection.connect(conninfo, row_factory=dict_row)
        async with asyncio.timeout(sql.timeout + CONNECT_TIMEOUT_S), await connecting as connection:
            written = writes
            await connection.set_read_only(not writes)
            return await (_write if writes else _read)(connection.cursor(), sql, bound)
    except (TimeoutError, psycopg.errors.QueryCanceled) as error:
        known = isinstance(error, psycopg.errors.QueryCanceled) or not written
        return failure(f"the database took longer than {sql.timeout} s; {'nothing was changed' if known else EFFECT_UNKNOWN}")
    except _ResultTooLarge:
        return failure(f"it returned more than {sql.rows} rows or {sql.answer:,} bytes, and was undone")
    except psycopg.Error as error:
        # A deadlock, for example, is an answer: the transaction was rolled back, and the text names no host or user.
        if isinstance(error, psycopg.OperationalError) and not (error.sqlstate or "").startswith(ROLLBACK_CLASS):
            # Its own text names host and user.
            effect = f"; {EFFECT_UNKNOWN}" if written else ""
            return failure(f"the database does not answer ({error.sqlstate or 'no connection'}){effect}")
        return failure(f"the database refuses it: {error.diag.message_primary or type(error).__name__} ({error.sqlstate or '-'})")


async def _read(cursor: Rows, sql: Sql, values: Mapping[str, Any]) -> Result:
    """Return the first rows. Fetches one row at a time, and never those beyond the limit."""
    collected = _BoundedRows(sql)
    # Close it here, not when it is garbage-collected: closing it stops the database.
    async with contextlib.aclosing(cast("AsyncGenerator[dict[str, Any]]", cursor.stream(sql.statement.encode(), values))) as rows:
        async for row in rows:
            if not collected.add(row):
                return Result(_json({"rows": collected.rows, "cut": True}), cut=True)
    return Result(_json({"rows": collected.rows}))


async def _write(cursor: Rows, sql: Sql, values: Mapping[str, Any]) -> Result:
    """Return the statement's rows, or how many rows it changed."""
    await cursor.execute(sql.statement.encode(), values)
    if cursor.description is None:
        return Result(_json({"changed": cursor.rowcount}))
    collected = _BoundedRows(sql)
    async for row in cursor:
        if not collected.add(row):
            raise _ResultTooLarge
    return Result(_json({"rows": collected.rows}))


class _BoundedRows:
    """Collects rows up to the tool's limits."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._size = 0
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> bool:
        """Add a row; return False if it exceeds a limit."""
        self._size += len(_json(row)) + 2
        if len(self.rows) >= self._sql.rows or self._size > self._sql.answer:
            return False
        self.rows.append(row)
        return True


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")
