"""Where in Vault a credential's certificate is, whose revocation is looked at."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add it; credentials of before are no certificates."""
    op.add_column("credentials", sa.Column("certificate", sa.Text(), nullable=True))
