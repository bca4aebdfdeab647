"""Index the inbox: requests by deadline, answers by approver, delegations by delegate."""

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("ix_requests_state_expires_at_id", "requests", ["state", "expires_at", "id"])
    op.create_index("ix_approvals_approver_id_at", "approvals", ["approver_id", "at"])
    op.create_index("ix_delegations_delegate_id_until", "delegations", ["delegate_id", "until"])
