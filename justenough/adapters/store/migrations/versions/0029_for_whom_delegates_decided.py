"""Record the entity id of the person for whom a delegate decided."""

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
    """Add the column, and set it by the delegations."""
    op.add_column("approvals", sa.Column("on_behalf_of_id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=True))
    op.execute(_PEOPLE)
