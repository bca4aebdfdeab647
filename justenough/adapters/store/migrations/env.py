"""Run by alembic for each command: takes the connection that `justenough.adapters.store.migrate` hands over, within its transaction."""

from alembic import context

from justenough.adapters.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
