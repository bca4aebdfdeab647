"""Finds the sessions in PostgreSQL that hold locks on users and spaces, so that these cannot be dropped. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import psycopg

UNSAFE = re.compile(r"[^\w .@/-]")
FIND_LOCKS_SQL = """
    WITH remains AS (
        SELECT 'pg_authid'::regclass AS classid, oid AS objid FROM pg_catalog.pg_roles WHERE rolname = ANY (%(names)s)
        UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_catalog.pg_namespace WHERE nspname = ANY (%(names)s)
    ), objects AS (
        SELECT classid, objid FROM remains
        UNION ALL SELECT 'pg_class'::regclass, c.oid FROM pg_catalog.pg_class c
            JOIN remains r ON r.classid = 'pg_namespace'::regclass AND r.objid = c.relnamespace
        UNION ALL SELECT d.classid, d.objid FROM pg_catalog.pg_shdepend d
            JOIN remains r ON r.classid = d.refclassid AND r.objid = d.refobjid
            WHERE d.deptype = 'o' AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    )
    SELECT DISTINCT a.pid, a.usename, a.application_name, a.xact_start
    FROM pg_catalog.pg_locks l
    JOIN objects o ON (l.locktype = 'relation' AND o.classid = 'pg_class'::regclass AND o.objid = l.relation)
        OR (l.locktype = 'object' AND o.classid = l.classid AND o.objid = l.objid)
    JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid AND a.usename IS NOT NULL
    WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid()
        AND l.database IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks w WHERE w.pid = l.pid AND NOT w.granted)
    ORDER BY a.pid LIMIT 5
"""
"""Sessions that hold locks on these users and spaces, on what they own and what is in them.

A session that itself waits for a lock, such as another attempt to drop them, is left out: it ends when the others do.
"""


FIND_SESSIONS_SQL = """
    SELECT pid, usename, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - coalesce(query_start, backend_start))
    FROM pg_catalog.pg_stat_activity WHERE usename = ANY (%(names)s) ORDER BY pid LIMIT 5
"""
"""Sessions of these users. After they were told to end, those are left whose statement checks for no interrupt."""


def find_sessions(connection: psycopg.Connection[Any], target: str, names: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each session of these users, which PostgreSQL was told to end: who, for how long, and what ends it."""
    remedy = "PostgreSQL cannot end it before its statement ends; its server's administrator can with SIGKILL, which restarts the server"
    return tuple(
        f"session in {target}: {pid} of {re.sub(UNSAFE, '?', user)} has been running a statement for {seconds or 0:.0f} s. {remedy}"
        for pid, user, seconds in connection.execute(FIND_SESSIONS_SQL, {"names": list(names)})
    )


def find_locks(connection: psycopg.Connection[Any], target: str, names: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each session that holds locks on users and spaces of these names."""
    return tuple(_lock_text(target, *row) for row in connection.execute(FIND_LOCKS_SQL, {"names": list(names)}))


def _lock_text(target: str, pid: int, user: str, application: str | None, since: datetime | None) -> str:
    # Any user may choose these names, and must not imitate another sentence.
    who, program = (re.sub(UNSAFE, "?", name or "unnamed") for name in (user, application))
    began = f"in a transaction since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if since else "and the observer may not see since when"
    return f"lock in {target}: session {pid} of {who} (application {program}) holds locks on what is left of the job, {began}"
