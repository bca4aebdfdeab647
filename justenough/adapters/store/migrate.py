"""Migrates a database to this version's schema. The migrations are in `migrations/`, which ships inside the package.

On PostgreSQL, the owner of the tables also grants the minimal rights that workers and consoles need (`justenough store migrate --grant ROLE`):
the ledger can only be read and appended to. SQLite has no rights.

`inspect_store` reports what can be observed of the database, for people who set it up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import InsufficientPrivilege, InvalidSchemaName
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from justenough.adapters.store.change_feed import CHANNEL
from justenough.adapters.store.engine import SESSION, read_transaction, write_transaction
from justenough.adapters.store.errors import StoreRightsMissing, StoreTooNew, StoreUnavailable, StoreUnfit
from justenough.adapters.store.postgres_connection import PostgresConnector, first_line, place_of
from justenough.adapters.store.tables import METADATA

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS_FOLDER = Path(__file__).parent / "migrations"
REVISIONS = tuple(sorted(file.name.partition("_")[0] for file in (MIGRATIONS_FOLDER / "versions").glob("[0-9]*.py")))
"""The revisions that this version knows, oldest first. Read without alembic, which takes long to load and is seldom needed at a start."""
OLDEST_POSTGRESQL = (13,)
NOTICE_TIMEOUT_S = 3.0
LOCAL_HOSTS = frozenset({"", "localhost", "127.0.0.1", "::1"})
RIGHTS = {"alembic_version": "SELECT"} | {table.name: str(table.info["rights"]) for table in METADATA.tables.values()}
"""By table, the rights that workers and consoles need."""

_CURRENT_ROLE = text("SELECT current_user")
_ROLE = text("SELECT rolsuper, pg_has_role(rolname, :owner, 'MEMBER') FROM pg_roles WHERE rolname = :role")
_LEDGER_OWNER = text("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass('ledger')")
_LACKING = text(
    "SELECT name || '.' || lower(wanted) FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[])) AS needed (name, wanted)"
    " WHERE NOT coalesce(has_table_privilege(to_regclass(name), wanted), false)"
)
_MAY_CHANGE_LEDGER = text("SELECT coalesce(has_table_privilege(to_regclass('ledger'), 'UPDATE, DELETE, TRUNCATE, TRIGGER'), false)")


@dataclass(frozen=True, slots=True)
class Revisions:
    """Two revisions of the schema. `found` is None if the database is empty."""

    found: str | None
    newest: str


@dataclass(frozen=True, slots=True)
class PostgresReport:
    role: str
    server_version: tuple[int, ...]
    is_encrypted: bool
    is_local: bool
    """Whether no network is between."""
    is_direct: bool
    """Whether no pooler is between."""
    is_read_only: bool
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


def migrate(engine: Engine, *, grant: str | None = None) -> Revisions:
    """Upgrade to the newest revision in one transaction and return what was found. A second process waits, then has nothing to do.

    With `grant`, also give that role the rights that workers and consoles need. Raises StoreTooNew, StoreUnfit, StoreRightsMissing.
    """
    with read_transaction(engine) as connection:
        require_version(connection)
        revisions = read_revisions(connection)
        if revisions.found == revisions.newest and grant is None:
            if connection.dialect.name == "postgresql":
                require_rights(connection)
            return revisions
    # The writers' lock makes every other process wait. The revision is read again, because another process may have migrated meanwhile.
    with write_transaction(engine) as connection, _explain_refusals(connection, revisions):
        if read_revisions(connection).found != revisions.newest:
            from alembic import command  # noqa: PLC0415 - see REVISIONS

            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        if grant is not None and connection.dialect.name == "postgresql":
            grant_rights(connection, grant)
    return revisions


def read_revisions(connection: Connection) -> Revisions:
    """Return the database's revision and this version's. Raises StoreTooNew if this version does not know the former, StoreRightsMissing."""
    newest = REVISIONS[-1]
    with _explain_refusals(connection, None):
        is_empty = not inspect(connection).has_table("alembic_version")
        revision = None if is_empty else connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision not in REVISIONS:
        raise StoreTooNew(
            f"the store is at revision {revision}, made by a newer version of JustEnough; this version knows up to "
            f"{newest}. Start the newer version again, or restore the backup that was made before it"
        )
    return Revisions(revision, newest)


def require_version(connection: Connection) -> None:
    """Raise StoreUnfit if PostgreSQL is older than the oldest supported version."""
    version = connection.dialect.server_version_info
    if connection.dialect.name == "postgresql" and version is not None and tuple(version) < OLDEST_POSTGRESQL:
        found, oldest = ".".join(map(str, version)), ".".join(map(str, OLDEST_POSTGRESQL))
        raise StoreUnfit(f"the store's server is PostgreSQL {found}; upgrade it to {oldest} or newer")


@contextmanager
def _explain_refusals(connection: Connection, revisions: Revisions | None) -> Iterator[None]:
    """Translate a refusal for lack of rights: while reading the revision, or while migrating from `revisions`."""
    role = current_role(connection) if connection.dialect.name == "postgresql" else ""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege | InvalidSchemaName):
            raise
        line = first_line(error.orig)
        if revisions is None:
            what = f"the role {role} may not read the store"
        elif revisions.found is None:
            what = f"the store is empty, and the role {role} may not create its tables"
        elif revisions.found != revisions.newest:
            what = (
                f"the store is at revision {revisions.found}, this version needs {revisions.newest}, and the role {role} may not migrate it"
            )
        else:
            what = f"the role {role} may not grant rights in the store"
        remedy = "run `justenough store migrate --grant ROLE` with the URL of a role that owns the tables, or may create them"
        raise StoreRightsMissing(f"{what} ({line}); {remedy}") from error


def alembic_config() -> Config:
    """Return alembic's configuration; it needs no file."""
    from alembic.config import Config  # noqa: PLC0415 - see REVISIONS

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_FOLDER).replace("%", "%%"))
    return config


def current_role(connection: Connection) -> str:
    return str(connection.execute(_CURRENT_ROLE).scalar_one())


def missing_rights(connection: Connection) -> tuple[str, ...]:
    """Return the rights that the connection's role lacks, as `table.right`."""
    needed = [(table, right) for table, rights in sorted(RIGHTS.items()) for right in rights.split(", ")]
    values = {"names": [table for table, _ in needed], "rights": [right for _, right in needed]}
    return tuple(connection.execute(_LACKING, values).scalars())


def require_rights(connection: Connection) -> None:
    """Raise StoreRightsMissing unless the connection's role has every right that workers and consoles need."""
    if lacking := missing_rights(connection):
        role = current_role(connection)
        shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        raise StoreRightsMissing(
            f"the role {role} lacks rights in the store ({shown}); run `justenough store migrate --grant {role}` as the owner of its tables"
        )


def may_change_ledger(connection: Connection) -> bool:
    """Whether the connection's role could change or remove ledger entries, or disable the triggers that prevent it."""
    return bool(connection.execute(_MAY_CHANGE_LEDGER).scalar_one())


def grant_rights(connection: Connection, role: str) -> None:
    """Give a role these rights on the tables of the connection's schema, and revoke every other right on them. Raises StoreRightsMissing."""
    owner = connection.execute(_LEDGER_OWNER).scalar_one()
    found = connection.execute(_ROLE, {"role": role, "owner": owner}).first()
    if found is None:
        raise StoreRightsMissing(f"there is no role {role}: create it first, as in docs/how-to/store.md")
    if any(found):
        raise StoreRightsMissing(f"the role {role} owns the store's tables, so it has every right on them: grant them to another role")
    quote = connection.dialect.identifier_preparer.quote
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    connection.execute(text(f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)}"))
    for table, rights in RIGHTS.items():
        connection.execute(text(f"REVOKE ALL ON {quote(table)} FROM {quote(role)}"))
        connection.execute(text(f"GRANT {rights} ON {quote(table)} TO {quote(role)}"))


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
            is_local=host in LOCAL_HOSTS or host.startswith("/"),
            is_direct=connection.info[SESSION].is_direct,
            is_read_only=bool(is_read_only.scalar_one()),
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
            return "a pooler is between, and does not pass notices on"
        try:
            listener.execute(f"LISTEN {CHANNEL}".encode())
            reader.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
            reader.commit()
            arrived = any(True for _ in listener.notifies(timeout=NOTICE_TIMEOUT_S, stop_after=1))
        except psycopg.Error as error:
            return first_line(error)
    return None if arrived else "no notice arrived there: it may be another database"
