"""Why a credential was ended while its job went on."""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add it; of what ended before, nobody recorded it."""
    op.add_column("credentials", sa.Column("revoked_why", sa.Text(), nullable=True))
