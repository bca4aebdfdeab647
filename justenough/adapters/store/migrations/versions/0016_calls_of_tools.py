"""Record the tool call that a request is for."""

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column. It is null for existing requests, as for every request that is not for a tool call."""
    op.add_column("requests", sa.Column("call", sa.JSON(none_as_null=True), nullable=True))
