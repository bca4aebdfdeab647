"""Add the outbox: the progress of each subscription, pending and dead deliveries, sent notices, and the lease for delivering."""

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the four tables."""
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "subscriptions",
        sa.Column("name", name, nullable=False),
        sa.Column("kind", name, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", moment, nullable=True),
        sa.Column("failed_at", moment, nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_subscriptions"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", name, nullable=False),
        sa.Column("subscription", name, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("event", name, nullable=False),
        sa.Column("type", name, nullable=False),
        sa.Column("job", name, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("state", name, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", moment, nullable=True),
        sa.Column("last_at", moment, nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("subscription", "position", name="uq_deliveries_subscription_position"),
    )
    op.create_index("ix_deliveries_subscription_state_next_at", "deliveries", ["subscription", "state", "next_at"])
    op.create_index("ix_deliveries_subscription_state_at_id", "deliveries", ["subscription", "state", "at", "id"])
    op.create_table(
        "told",
        sa.Column("subscription", name, nullable=False),
        sa.Column("about", name, nullable=False),
        sa.Column("target", name, nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("job", name, nullable=False),
        sa.PrimaryKeyConstraint("subscription", "about", "target", name="pk_told"),
    )
    op.create_index("ix_told_subscription_job", "told", ["subscription", "job"])
    op.create_table(
        "leases",
        sa.Column("name", name, nullable=False),
        sa.Column("holder", name, nullable=False),
        sa.Column("until", moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
