"""Record the Vault path of a credential's certificate, whose revocation is checked."""

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; existing credentials have no certificate."""
    op.add_column("credentials", sa.Column("certificate", sa.Text(), nullable=True))
