"""Add the tables in which consoles index the ledger for the search. They are filled from the ledger's beginning by the first console that runs."""

import sqlalchemy as sa
from alembic import op

revision: str = "0027"
down_revision: str | None = "0026"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the tables."""
    code_points = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "search_words",
        sa.Column("word", code_points, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("word", "position", name="pk_search_words"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "search_names",
        sa.Column("reader_id", code_points, nullable=False),
        sa.Column("kind", code_points, nullable=False),
        sa.Column("name", code_points, nullable=False),
        sa.PrimaryKeyConstraint("reader_id", "kind", "name", name="pk_search_names"),
    )
    op.create_index("ix_search_names_kind_name", "search_names", ["kind", "name"])
    op.create_table(
        "search_progress",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_progress"),
    )
