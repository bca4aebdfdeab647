"""Run by alembic for each command: uses the connection that `justenough.adapters.store.migrate` passes, within its transaction."""

from alembic import context

from justenough.adapters.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
