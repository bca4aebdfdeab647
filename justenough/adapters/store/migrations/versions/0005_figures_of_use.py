"""Index jobs by name, and requests and credentials by action, for usage figures."""

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("ix_jobs_name_id", "jobs", ["name", "id"])
    op.create_index("ix_jobs_requester_id_name_id", "jobs", ["requester_id", "name", "id"])
    op.create_index("ix_requests_resource_action_created_at", "requests", ["resource", "action", "created_at"])
    op.create_index("ix_credentials_resource_action_issued_at", "credentials", ["resource", "action", "issued_at"])
