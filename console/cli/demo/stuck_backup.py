"""Makes one revocation overdue: a database session, as of a backup whose client is gone, locks a job's table.

The job's space cannot be dropped while the lock is held, and PostgreSQL keeps the session because it notices a lost client only when it
sends an answer. The session ends when somebody terminates it, when PostgreSQL stops, or after a day. No process of the demo keeps running.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from console.cli.demo.environment import DemoFailed, poll_until

BACKUP_NAME = "nightly-backup"
"""The session's application name in pg_stat_activity."""
TABLE_TIMEOUT_S = 60.0
LOCK_S = 24 * 3600


def lock_table(shop_dsn: str, job: str) -> int:
    """Lock the table `report` in a job's space; return the process id of the session that holds the lock. Raises DemoFailed."""
    with psycopg.connect(shop_dsn, application_name=BACKUP_NAME) as session:
        table = sql.Identifier(f"space-{job}", "report")
        name = table.as_string(session)

        def find_table() -> bool | None:
            found = session.execute("SELECT to_regclass(%s)", (name,)).fetchone()
            session.rollback()
            return True if found and found[0] else None

        if poll_until(find_table, within_s=TABLE_TIMEOUT_S) is None:
            raise DemoFailed(f"{job} has not created its table after {TABLE_TIMEOUT_S:.0f} s")
        process = session.info.backend_pid
        session.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table))
        session.pgconn.send_query(f"SELECT pg_sleep({LOCK_S})".encode())
        # The client goes away without an answer; the session stays.
        session.pgconn.finish()
        return process
