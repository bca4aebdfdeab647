"""Which tools access is had through, and what people bound them to."""

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add them; requests and answers of before bind nothing."""
    for table, column in (("requests", "tools"), ("requests", "granted_tools"), ("approvals", "tools")):
        op.add_column(table, sa.Column(column, sa.JSON(none_as_null=True), nullable=True))
