"""Distinguish credentials that cannot be revoked, and jobs that leave such credentials, from those that were confirmed as revoked."""

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | None = None
depends_on: str | None = None

# What only tools used was never with the job. Of a model's key nothing tells that; it counts as the job's.
_CREDENTIALS = """
    UPDATE credentials SET state = 'residual'
    WHERE (revocable = 'on_expiry' AND live AND state = 'revoked')
    OR (revocable = 'never' AND state = 'expired' AND request_id IN (
        SELECT id FROM requests WHERE coalesce(CAST(call AS TEXT), 'null') = 'null' AND coalesce(CAST(tools AS TEXT), 'null') = 'null'))
"""
_JOBS = """
    UPDATE jobs SET revocation_state = 'residual', revocation_residual_until = CASE
        WHEN EXISTS (SELECT 1 FROM credentials WHERE job_id = jobs.id AND state = 'residual' AND revocable = 'never') THEN NULL
        ELSE (SELECT max(expires_at) FROM credentials WHERE job_id = jobs.id AND state = 'residual') END
    WHERE revocation_state = 'confirmed' AND EXISTS (SELECT 1 FROM credentials WHERE job_id = jobs.id AND state = 'residual')
"""


def upgrade() -> None:
    """Add the columns, and mark credentials that were shown as revoked but are still valid."""
    op.add_column("jobs", sa.Column("revocation_residual_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("credentials", sa.Column("held_by_job", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.execute(_CREDENTIALS)
    op.execute(_JOBS)
