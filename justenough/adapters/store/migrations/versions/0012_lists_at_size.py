"""Add indexes for lists, figures and the ledger (newest first), and count jobs by state as they end."""

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None

INDEXES = {
    "jobs": (
        ("requester", "requester_id", "id"),
        ("name", "state", "id"),
        ("name", "environment", "id"),
        ("name", "environment", "state", "id"),
    ),
    "credentials": (
        ("state", "issued_at", "id"),
        ("resource", "issued_at", "id"),
        ("action", "issued_at", "id"),
        ("confirmed_at", "issued_at"),
    ),
    "approvals": (("at",),),
    "ledger": (("type", "at", "position"),),
}


def upgrade() -> None:
    """Add the indexes and statistics, and count the jobs that have ended so far."""
    for table, all_columns in INDEXES.items():
        for columns in all_columns:
            op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))
    over = sa.text("ended_at IS NOT NULL")
    op.create_index("ix_jobs_ended_at_state", "jobs", ["ended_at", "state"], sqlite_where=over, postgresql_where=over)
    if op.get_bind().dialect.name == "postgresql":
        # Names correlate with environments, and resources with actions: a planner that assumes independence reads all jobs for a rare pair.
        op.execute("CREATE STATISTICS je_jobs_kinds (mcv) ON name, environment FROM jobs")
        op.execute("CREATE STATISTICS je_jobs_requesters (dependencies) ON requester, requester_id FROM jobs")
        op.execute("CREATE STATISTICS je_credentials_kinds (mcv) ON resource, action, state FROM credentials")
    _count()


def _count() -> None:
    name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "ended_jobs",
        sa.Column("state", name, nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("state", name="pk_ended_jobs"),
    )
    op.execute("INSERT INTO ended_jobs (state, jobs) SELECT state, count(*) FROM jobs WHERE ended_at IS NOT NULL GROUP BY state")
