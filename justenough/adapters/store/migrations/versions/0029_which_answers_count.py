"""Record for whom a delegate decided, by entity id, and why an answer no longer counts."""

import json
from contextlib import suppress

import sqlalchemy as sa
from alembic import op

revision: str = "0029"
down_revision: str | None = "0028"
branch_labels: str | None = None
depends_on: str | None = None

# Earlier versions recorded only the login name beside an answer. Two people may have it, but the answer's entry names the person.
_DELEGATED = "SELECT id, data FROM ledger WHERE id IN (SELECT id FROM approvals WHERE on_behalf_of IS NOT NULL)"
_FOR_WHOM = "UPDATE approvals SET on_behalf_of_id = :person WHERE id = :id"


def upgrade() -> None:
    """Add the columns. Set the entity id from the ledger. `lapsed` stays empty for earlier answers: only the ledger says why they lapsed."""
    op.add_column("approvals", sa.Column("lapsed", sa.Text(), nullable=True))
    op.add_column("approvals", sa.Column("on_behalf_of_id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=True))
    for name, data in op.get_bind().execute(sa.text(_DELEGATED)).all():
        # Data that somebody replaced must not keep the store from being upgraded.
        with suppress(ValueError, RecursionError, KeyError, TypeError):
            person = json.loads(data)["on_behalf_of"]
            if isinstance(person, str) and person.isprintable():
                op.get_bind().execute(sa.text(_FOR_WHOM), {"id": name, "person": person})
