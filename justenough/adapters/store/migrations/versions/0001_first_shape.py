"""Create the first schema: ledger, read model, claims, orders, bundles and logs."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

# Spelled out here rather than taken from the models: models change, a migration does not.
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

REFUSAL = "the ledger is insert-only"

# An INSERT OR REPLACE removes rows without firing delete triggers, so an insert that would replace one is refused as well.
SQLITE_TRIGGERS = tuple(
    f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    for name, when in {
        "ledger_no_update": "UPDATE ON ledger",
        "ledger_no_delete": "DELETE ON ledger",
        "ledger_no_replace_position": "INSERT ON ledger WHEN EXISTS (SELECT 1 FROM ledger WHERE position = NEW.position)",
        "ledger_no_replace_id": "INSERT ON ledger WHEN EXISTS (SELECT 1 FROM ledger WHERE id = NEW.id)",
        "ledger_no_replace_seq": "INSERT ON ledger WHEN EXISTS (SELECT 1 FROM ledger WHERE job = NEW.job AND seq = NEW.seq)",
    }.items()
)
# ENABLE ALWAYS: the triggers also fire in a session with the role of a replica.
POSTGRESQL_TRIGGERS = (
    f"CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
    "CREATE TRIGGER ledger_no_change BEFORE UPDATE OR DELETE ON ledger FOR EACH ROW EXECUTE FUNCTION ledger_refuse()",
    "CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON ledger FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()",
    "ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_no_change",
    "ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_no_truncate",
)


def upgrade() -> None:
    """Create every table, and the triggers that prevent changes to the ledger."""
    _record()
    _read_model()
    _belongings()
    for statement in SQLITE_TRIGGERS if op.get_bind().dialect.name == "sqlite" else POSTGRESQL_TRIGGERS:
        op.execute(statement)


def _record() -> None:
    op.create_table(
        "ledger",
        sa.Column("position", POSITION, nullable=False, autoincrement=False),
        sa.Column("job", NAME, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("type", NAME, nullable=False),
        sa.Column("at", NAME, nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("prev", NAME, nullable=False),
        sa.Column("hash", NAME, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_ledger"),
        sa.UniqueConstraint("id", name="uq_ledger_id"),
        sa.UniqueConstraint("job", "seq", name="uq_ledger_job_seq"),
    )
    op.create_table(
        "chain_heads",
        sa.Column("job", NAME, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("hash", NAME, nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_chain_heads"),
    )


def _read_model() -> None:
    _jobs()
    _requests()
    _credentials()


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", NAME, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("environment", NAME, nullable=False),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("requester_id", NAME, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("revocation_state", NAME, nullable=False),
        sa.Column("revocation_confirmed_at", MOMENT, nullable=True),
        sa.Column("revocation_failures", sa.JSON(), nullable=False),
        sa.Column("agent", sa.JSON(), nullable=True),
        sa.Column("data_scope", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("bundle", NAME, nullable=True),
        sa.Column("order_reason", sa.Text(), nullable=False),
        sa.Column("sandbox", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_environment_id", "jobs", ["environment", "id"])
    op.create_index("ix_jobs_environment_state_id", "jobs", ["environment", "state", "id"])
    op.create_index("ix_jobs_requester_id_environment_id", "jobs", ["requester_id", "environment", "id"])
    op.create_index("ix_jobs_requester_id_environment_state_id", "jobs", ["requester_id", "environment", "state", "id"])
    op.create_index("ix_jobs_requester_id_id", "jobs", ["requester_id", "id"])
    op.create_index("ix_jobs_requester_id_state_id", "jobs", ["requester_id", "state", "id"])
    op.create_index("ix_jobs_revocation_state_created_at", "jobs", ["revocation_state", "created_at"])
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_table(
        "orders",
        sa.Column("job", NAME, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("bundle", NAME, nullable=True),
        sa.Column("signed", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_orders"),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("requester_id", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("ttl", sa.Integer(), nullable=False),
        sa.Column("granted_ttl", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("optional", sa.Boolean(), nullable=False),
        sa.Column("sensitivity", sa.Text(), nullable=False),
        sa.Column("revocable", sa.Text(), nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("current_tier", sa.Integer(), nullable=False),
        sa.Column("quorum", sa.Integer(), nullable=False),
        sa.Column("policies", sa.JSON(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
    )
    op.create_index("ix_requests_created_at_id", "requests", ["created_at", "id"])
    op.create_index("ix_requests_job_id_number", "requests", ["job_id", "number"])
    op.create_index("ix_requests_requester_id_created_at_id", "requests", ["requester_id", "created_at", "id"])
    op.create_index("ix_requests_requester_id_state_created_at_id", "requests", ["requester_id", "state", "created_at", "id"])
    op.create_index("ix_requests_state_created_at_id", "requests", ["state", "created_at", "id"])
    op.create_table(
        "approvals",
        sa.Column("id", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("approver", sa.Text(), nullable=False),
        sa.Column("approver_id", NAME, nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ttl", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
    )
    op.create_index("ix_approvals_request_id", "approvals", ["request_id"])


def _credentials() -> None:
    op.create_table(
        "credentials",
        sa.Column("id", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("request_id", NAME, nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=True),
        sa.Column("accessor", sa.Text(), nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("confirmed_at", MOMENT, nullable=True),
        sa.Column("confirmed_how", sa.Text(), nullable=True),
        sa.Column("revocable", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_credentials"),
    )
    op.create_index("ix_credentials_issued_at_id", "credentials", ["issued_at", "id"])
    op.create_index("ix_credentials_job_id", "credentials", ["job_id"])
    op.create_index("ix_credentials_live_issued_at_id", "credentials", ["live", "issued_at", "id"])


def _belongings() -> None:
    op.create_table(
        "claims",
        sa.Column("job", NAME, nullable=False),
        sa.Column("run", NAME, nullable=True),
        sa.Column("owner", NAME, nullable=True),
        sa.Column("renewed_at", MOMENT, nullable=False),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("job", name="pk_claims"),
    )
    op.create_table(
        "bundles",
        sa.Column("digest", NAME, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_bundles"),
    )
    op.create_table(
        "logs",
        sa.Column("job", NAME, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "seq", name="pk_logs"),
    )
    op.create_table(
        "log_sizes",
        sa.Column("job", NAME, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_log_sizes"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("person", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("job", NAME, nullable=False),
        sa.Column("digest", NAME, nullable=False),
        sa.PrimaryKeyConstraint("person", "key", name="pk_idempotency_keys"),
    )
