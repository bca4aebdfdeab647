"""Record when a running job times out."""

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; it stays unknown for jobs that have started already."""
    op.add_column("jobs", sa.Column("times_out_at", sa.DateTime(timezone=True), nullable=True))
