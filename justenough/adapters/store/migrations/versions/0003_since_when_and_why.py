"""Record when a job's open revocation began, and why a credential is not confirmed dead."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add both columns and an index. Revocations that are already open count as begun when their job ended."""
    op.add_column("jobs", sa.Column("revocation_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_revocation_state_id", "jobs", ["revocation_state", "id"])
    op.add_column("credentials", sa.Column("why", sa.Text(), nullable=True))
    op.execute("UPDATE jobs SET revocation_since = COALESCE(ended_at, created_at) WHERE revocation_state IN ('pending', 'overdue')")
