"""Allow credentials without an accessor: they may have been issued, but no response arrived."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make the accessor nullable."""
    with op.batch_alter_table("credentials") as table:
        table.alter_column("accessor", existing_type=sa.Text(), nullable=True)
