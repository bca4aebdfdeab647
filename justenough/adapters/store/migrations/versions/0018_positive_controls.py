"""Record the user of each credential in its target, and what observers have been seen to find."""

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add columns and table; the users of existing credentials stay unknown."""
    for column in ("user", "target_digest", "search_digest"):
        op.add_column("credentials", sa.Column(column, sa.Text(), nullable=True))
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "positive_controls",
        sa.Column("digest", name, nullable=False),
        sa.Column("credential_id", name, nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_positive_controls"),
    )
