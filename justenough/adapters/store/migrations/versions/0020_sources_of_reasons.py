"""Record who wrote the reason of a request."""

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns; who wrote the reasons of existing requests stays unknown."""
    for column in ("reason_by", "signed_reason"):
        op.add_column("requests", sa.Column(column, sa.Text(), nullable=True))
