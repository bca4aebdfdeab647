"""Record which tools may use an access, and the bounds that people set on them."""

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns; existing requests and answers have no bounds."""
    for table, column in (("requests", "tools"), ("requests", "granted_tools"), ("approvals", "tools")):
        op.add_column(table, sa.Column(column, sa.JSON(none_as_null=True), nullable=True))
