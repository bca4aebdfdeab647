"""Record who acknowledged an item that needs attention."""

import sqlalchemy as sa
from alembic import op

revision: str = "0028"
down_revision: str | None = "0027"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the table. Nothing was acknowledged before."""
    code_points = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "acknowledgements",
        sa.Column("item", code_points, nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("person_id", code_points, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item", name="pk_acknowledgements"),
    )
