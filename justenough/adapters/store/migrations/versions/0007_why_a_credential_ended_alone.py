"""Record why a credential was revoked while its job continued."""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; it is empty for earlier revocations."""
    op.add_column("credentials", sa.Column("revoked_why", sa.Text(), nullable=True))
