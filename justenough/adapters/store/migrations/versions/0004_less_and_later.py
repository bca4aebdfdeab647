"""Add narrowed and withdrawn approvals, claims, break-glass reviews and delegations."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns and the two tables. Earlier grants get the requested action."""
    op.add_column("requests", sa.Column("granted_action", sa.Text(), nullable=True))
    op.add_column("requests", sa.Column("claimed_by", sa.Text(), nullable=True))
    op.add_column("requests", sa.Column("claimed_by_id", NAME, nullable=True))
    op.add_column("requests", sa.Column("claimed_until", MOMENT, nullable=True))
    op.add_column("approvals", sa.Column("action", sa.Text(), nullable=True))
    op.add_column("approvals", sa.Column("on_behalf_of", sa.Text(), nullable=True))
    op.add_column("approvals", sa.Column("withdrawn_at", MOMENT, nullable=True))
    op.execute("UPDATE requests SET granted_action = action WHERE granted_ttl IS NOT NULL")
    op.create_table(
        "reviews",
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("person_id", NAME, nullable=False),
        sa.Column("tiers", sa.JSON(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("review_reason", sa.Text(), nullable=True),
        sa.Column("reviewed_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_reviews")),
    )
    op.create_index("ix_reviews_open_opened_at_request_id", "reviews", ["open", "opened_at", "request_id"])
    op.create_index("ix_reviews_opened_at_request_id", "reviews", ["opened_at", "request_id"])
    op.create_table(
        "delegations",
        sa.Column("id", NAME, nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("person_id", NAME, nullable=False),
        sa.Column("delegate", sa.Text(), nullable=False),
        sa.Column("delegate_id", NAME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_at", MOMENT, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("signed", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delegations")),
    )
    op.create_index("ix_delegations_made_at_id", "delegations", ["made_at", "id"])
    op.create_index("ix_delegations_person_id_delegate_id", "delegations", ["person_id", "delegate_id"])
