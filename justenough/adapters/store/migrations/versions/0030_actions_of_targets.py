"""Record which actions' users are in each target, so that consoles know what a failing target concerns."""

import sqlalchemy as sa
from alembic import op

revision: str = "0030"
down_revision: str | None = "0029"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column. The next sweep fills it."""
    op.add_column("target_checks", sa.Column("actions", sa.JSON(), nullable=True))
