"""Index jobs by requester, to find the newest jobs of a schedule without reading others."""

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_jobs_requester_id", "jobs", ["requester", "id"])
