"""Record places of running jobs, and when and by whom each bundle was uploaded, so that each person's share can be limited."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the table, the columns and their indexes. Bundles that are already stored count as uploaded now, by nobody."""
    code_points = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "places",
        sa.Column("job", code_points, nullable=False),
        sa.Column("account", code_points, nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_places"),
    )
    op.create_index("ix_places_account", "places", ["account"])
    op.add_column("bundles", sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("bundles", sa.Column("uploaded_by", code_points, nullable=True))
    bundles = sa.table("bundles", sa.column("uploaded_at", sa.DateTime(timezone=True)))
    op.execute(bundles.update().values(uploaded_at=datetime.now(UTC)))
    op.create_index("ix_bundles_uploaded_at", "bundles", ["uploaded_at"])
    named = sa.text("bundle IS NOT NULL")
    op.create_index("ix_orders_bundle", "orders", ["bundle"], sqlite_where=named, postgresql_where=named)
