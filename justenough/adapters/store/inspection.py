"""Reports what can be observed of the store's database, for people who set it up. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, text

from justenough.adapters.store.change_feed import CHANNEL
from justenough.adapters.store.engine import SESSION, read_transaction
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.migrate import Revisions, missing_parts, read_revisions, require_version
from justenough.adapters.store.postgres_connection import PostgresConnector, first_line, place_of
from justenough.adapters.store.rights import current_role, may_change_ledger, missing_rights

NOTICE_TIMEOUT_S = 3.0
LOCAL_HOSTS = frozenset({"", "localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class PostgresReport:
    role: str
    server_version: tuple[int, ...]
    is_encrypted: bool
    is_verified: bool
    """Whether the server had to show a certificate for its name."""
    is_local: bool
    """Whether the server is on this machine."""
    is_direct: bool
    """Whether there is no pooler in front of the server."""
    is_read_only: bool
    missing_parts: tuple[str, ...]
    """Keys and indexes of the newest revision, and triggers of the ledger, that are missing: pg_restore makes them last."""
    missing_rights: tuple[str, ...]
    may_change_ledger: bool
    notices: str | None
    """Why no notice of a new entry arrives; None if one arrives."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    place: str
    """The database's address, without a password."""
    revisions: Revisions
    postgres: PostgresReport | None
    """None for SQLite."""


def inspect_store(engine: Engine, connector: PostgresConnector | None) -> StoreReport:
    """Connect to the database and return what was observed."""
    with read_transaction(engine) as connection:
        require_version(connection)
        revisions = read_revisions(connection)
        if connector is None:
            return StoreReport(str(engine.url.database), revisions, None)
        driver: Any = connection.connection.driver_connection
        role, host = current_role(connection), driver.info.host
        is_read_only = connection.execute(text("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool"))
        report = PostgresReport(
            role=role,
            server_version=tuple(map(int, engine.dialect.server_version_info or ())),
            is_encrypted=bool(driver.pgconn.ssl_in_use),
            is_verified=any((option.keyword, option.val) == (b"sslmode", b"verify-full") for option in driver.pgconn.info),
            is_local=host in LOCAL_HOSTS or host.startswith("/"),
            is_direct=connection.info[SESSION].is_direct,
            is_read_only=bool(is_read_only.scalar_one()),
            missing_parts=missing_parts(connection) if revisions.found == revisions.newest else (),
            missing_rights=missing_rights(connection) if revisions.found else (),
            may_change_ledger=may_change_ledger(connection),
            # Last, because it ends the transaction.
            notices=_try_notice(engine, connector, connection),
        )
        return StoreReport(place_of(connector.url, user=role), revisions, report)


def _try_notice(engine: Engine, connector: PostgresConnector, reader: Connection) -> str | None:
    """Return why a notice of our transactions does not reach a listener; None if it does."""
    try:
        listener, session = connector.connect_listener(engine.dialect)
    except StoreUnavailable as error:
        return str(error)
    with listener:
        if not session.is_direct:
            return "a pooler is in front of the server, and does not pass notices on"
        try:
            listener.execute(f"LISTEN {CHANNEL}".encode())
            reader.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
            reader.commit()
            arrived = any(True for _ in listener.notifies(timeout=NOTICE_TIMEOUT_S, stop_after=1))
        except psycopg.Error as error:
            return first_line(error)
    return None if arrived else "no notice arrived there: it may be another database"
