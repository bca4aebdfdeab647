"""Index the ledger by time, to find the start of a period without reading earlier entries."""

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_ledger_at_position", "ledger", ["at", "position"])
