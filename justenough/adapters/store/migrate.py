"""Brings a database to this version's shape. The migrations themselves are in `migrations/`, which ships inside the package."""

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
    """Upgrade to the newest revision, whole or not at all; a second process waits, then finds nothing to do. Raises StoreTooNew."""
    config = alembic_config()
    script = ScriptDirectory.from_config(config)
    with read_transaction(engine) as connection:
        if _current_revision(connection, script) == script.get_current_head():
            return
    # The writers' lock makes every other process wait, and it is looked up again what is there.
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
    """Return the revision that the database has; None where it is empty. Raises StoreTooNew where this version does not know it."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {known.revision for known in script.walk_revisions()}:
        message = (
            f"the store is at revision {found}, made by a newer version of JustEnough; this version knows up to {script.get_current_head()}. "
            "Start the newer version again, or restore the backup that was made before it"
        )
        raise StoreTooNew(message)
    return found
