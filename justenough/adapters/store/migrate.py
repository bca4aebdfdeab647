"""Migrates a database to this version's schema. The migrations are in `migrations/`, which ships inside the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from justenough.adapters.store.engine import read_transaction, write_transaction
from justenough.adapters.store.errors import StoreTooNew

MIGRATIONS_FOLDER = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Upgrade to the newest revision in one transaction. A second process waits, then has nothing to do. Raises StoreTooNew."""
    config = alembic_config()
    script = ScriptDirectory.from_config(config)
    with read_transaction(engine) as connection:
        if _current_revision(connection, script) == script.get_current_head():
            return
    # The writers' lock makes every other process wait. The revision is read again, because another process may have migrated meanwhile.
    with write_transaction(engine) as connection:
        if _current_revision(connection, script) != script.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def alembic_config() -> Config:
    """Return alembic's configuration; it needs no file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_FOLDER).replace("%", "%%"))
    return config


def _current_revision(connection: Connection, script: ScriptDirectory) -> str | None:
    """Return the database's revision; None if it is empty. Raises StoreTooNew if this version does not know the revision."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {known.revision for known in script.walk_revisions()}:
        raise StoreTooNew(
            f"the store is at revision {revision}, made by a newer version of JustEnough; this version knows up to "
            f"{script.get_current_head()}. Start the newer version again, or restore the backup that was made before it"
        )
    return revision
