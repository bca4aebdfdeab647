"""Migrates a database to this version's schema. The migrations are in `migrations/`, which ships inside the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.errors import InsufficientPrivilege, InvalidSchemaName
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from justenough.adapters.store.engine import read_transaction, write_transaction
from justenough.adapters.store.errors import StoreRightsMissing, StoreTooNew, StoreUnfit
from justenough.adapters.store.postgres_connection import first_line
from justenough.adapters.store.rights import current_role, grant_rights, require_rights
from justenough.adapters.store.tables import METADATA

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS_FOLDER = Path(__file__).parent / "migrations"
REVISIONS = tuple(sorted(file.name.partition("_")[0] for file in (MIGRATIONS_FOLDER / "versions").glob("[0-9]*.py")))
"""The revisions that this version knows, oldest first. Read without alembic, which takes long to load and is seldom needed at a start."""
OLDEST_POSTGRESQL = (13,)
LEDGER_TRIGGERS = "ledger_no_change", "ledger_no_truncate"
LEDGER_FUNCTION = "ledger_refuse"
"""What the triggers run. pg_restore makes functions before tables."""
_MISSING_INDEXES = text("SELECT name FROM unnest(CAST(:names AS text[])) AS needed (name) WHERE to_regclass(name) IS NULL ORDER BY name")
_TRIGGERS = text("SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('ledger') AND tgenabled = 'A'")
_LEDGER_FUNCTION = text("SELECT to_regproc(:name) IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Revisions:
    """Two revisions of the schema. `found` is None if the database is empty."""

    found: str | None
    newest: str


def migrate(engine: Engine, *, grant: str | None = None) -> Revisions:
    """Upgrade to the newest revision in one transaction and return what was found. A second process waits, then has nothing to do.

    With `grant`, also give that role the rights that workers and consoles need. Raises StoreTooNew, StoreUnfit, StoreRightsMissing.
    """
    with read_transaction(engine) as connection:
        require_version(connection)
        revisions = read_revisions(connection)
        if revisions.found == revisions.newest and grant is None:
            if connection.dialect.name == "postgresql":
                _require_keys(connection)
                require_rights(connection)
            return revisions
    # The writers' lock makes every other process wait. The revision is read again, because another process may have migrated meanwhile.
    with write_transaction(engine) as connection, _explain_refusals(connection, revisions):
        if read_revisions(connection).found != revisions.newest:
            from alembic import command  # noqa: PLC0415 - see REVISIONS

            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        if connection.dialect.name == "postgresql":
            _require_keys(connection)
            if grant is not None:
                grant_rights(connection, grant)
    return revisions


def missing_parts(connection: Connection, *, only_keys: bool = False) -> tuple[str, ...]:
    """Return the keys and indexes of the newest revision, and triggers of the ledger, that a PostgreSQL lacks. pg_restore makes them last.

    `only_keys`: without the indexes that only make queries faster.
    """
    tables = METADATA.tables.values()
    names = [str(constraint.name) for table in tables for constraint in table.constraints]
    names += [str(index.name) for table in tables for index in table.indexes if index.unique or not only_keys]
    triggers = connection.execute(_TRIGGERS).scalars().all()
    missing_indexes = connection.execute(_MISSING_INDEXES, {"names": names}).scalars()
    return (*(name for name in LEDGER_TRIGGERS if name not in triggers), *missing_indexes)


def _require_keys(connection: Connection) -> None:
    """Raise StoreUnfit if a PostgreSQL lacks keys or the ledger's triggers: most of its rows may be missing, too."""
    if missing := missing_parts(connection, only_keys=True):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise StoreUnfit(
            f"the database lacks {missing[0]}{more}: a restore failed or was interrupted, or somebody dropped them; restore the backup again, into an empty database"
        )


def read_revisions(connection: Connection) -> Revisions:
    """Return the database's revision and this version's.

    Raises StoreTooNew if this version does not know the former, StoreUnfit if there is something of ours without a revision,
    StoreRightsMissing.
    """
    newest = REVISIONS[-1]
    with _explain_refusals(connection, None):
        has_revisions = inspect(connection).has_table("alembic_version")
        revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if has_revisions else None
        left = None if revision else "alembic_version" if has_revisions else _first_of_ours(connection)
    if left:
        raise StoreUnfit(
            f"the database has {left}, but no revision: a restore was interrupted, or is still running; "
            "if none is running, restore the backup again, into an empty database"
        )
    if revision is not None and revision not in REVISIONS:
        raise StoreTooNew(
            f"the store is at revision {revision}, made by a newer version of JustEnough; this version knows up to "
            f"{newest}. Start the newer version again, or restore the backup that was made before it"
        )
    return Revisions(revision, newest)


def _first_of_ours(connection: Connection) -> str | None:
    """Return the name of something in a database without revisions that a migration would make; None if it is empty."""
    tables = sorted(METADATA.tables.keys() & set(inspect(connection).get_table_names()))
    if not tables and connection.dialect.name == "postgresql" and connection.scalar(_LEDGER_FUNCTION, {"name": LEDGER_FUNCTION}):
        return LEDGER_FUNCTION
    return tables[0] if tables else None


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
