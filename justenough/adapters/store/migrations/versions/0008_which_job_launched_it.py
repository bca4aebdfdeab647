"""Record which job launched a job."""

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the column, and an index that finds a job's children. Existing jobs have no parent."""
    op.add_column("jobs", sa.Column("parent", NAME, nullable=True))
    op.create_index("ix_jobs_parent_id", "jobs", ["parent", "id"])
