"""Store the wrapping tokens of locked requests as ciphertext, and the accessor and expiry of a request's lock."""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the table of wrapping tokens, and both columns of requests."""
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "locks",
        sa.Column("request", name, nullable=False),
        sa.Column("job", name, nullable=False),
        sa.Column("accessor", sa.Text(), nullable=False),
        sa.Column("token_accessor", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request", name="pk_locks"),
    )
    op.create_index("ix_locks_job", "locks", ["job"])
    op.add_column("requests", sa.Column("lock_accessor", sa.Text(), nullable=True))
    op.add_column("requests", sa.Column("lock_expires_at", sa.DateTime(timezone=True), nullable=True))
