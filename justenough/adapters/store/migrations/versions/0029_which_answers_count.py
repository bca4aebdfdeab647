"""Record for whom a delegate decided, by entity id, and why an answer no longer counts."""

import sqlalchemy as sa
from alembic import op

revision: str = "0029"
down_revision: str | None = "0028"
branch_labels: str | None = None
depends_on: str | None = None

# Older answers have the login name only.
_PEOPLE = """
    UPDATE approvals SET on_behalf_of_id = (SELECT max(person_id) FROM delegations WHERE delegate_id = approver_id AND person = on_behalf_of)
    WHERE on_behalf_of IS NOT NULL
"""


def upgrade() -> None:
    """Add the columns. Set the entity id by the delegations; why earlier answers no longer count stays in the ledger."""
    op.add_column("approvals", sa.Column("lapsed", sa.Text(), nullable=True))
    op.add_column("approvals", sa.Column("on_behalf_of_id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=True))
    op.execute(_PEOPLE)
