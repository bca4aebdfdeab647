"""The minimal rights that workers and consoles need on PostgreSQL (`justenough store migrate --grant ROLE`): the ledger can only be read and
appended to. SQLite has no rights.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from justenough.adapters.store.errors import StoreRightsMissing
from justenough.adapters.store.tables import METADATA

RIGHTS = {"alembic_version": "SELECT"} | {table.name: str(table.info["rights"]) for table in METADATA.tables.values()}
"""By table, the rights that workers and consoles need."""

_CURRENT_ROLE = text("SELECT current_user")
_ROLE = text("SELECT rolsuper, pg_has_role(rolname, :owner, 'MEMBER') FROM pg_roles WHERE rolname = :role")
_LEDGER_OWNER = text("SELECT pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('ledger')")
_LACKING = text(
    "SELECT name || '.' || lower(wanted) FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[])) AS needed (name, wanted)"
    " WHERE NOT coalesce(has_table_privilege(to_regclass(name), wanted), false)"
)
_MAY_CHANGE_LEDGER = text("SELECT coalesce(has_table_privilege(to_regclass('ledger'), 'UPDATE, DELETE, TRUNCATE, TRIGGER'), false)")


def current_role(connection: Connection) -> str:
    return str(connection.execute(_CURRENT_ROLE).scalar_one())


def missing_rights(connection: Connection) -> tuple[str, ...]:
    """Return the rights that the connection's role lacks, as `table.right`."""
    needed = [(table, right) for table, rights in sorted(RIGHTS.items()) for right in rights.split(", ")]
    values = {"names": [table for table, _ in needed], "rights": [right for _, right in needed]}
    return tuple(connection.execute(_LACKING, values).scalars())


def require_rights(connection: Connection) -> None:
    """Raise StoreRightsMissing unless the connection's role has every right that workers and consoles need."""
    if lacking := missing_rights(connection):
        role = current_role(connection)
        shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        raise StoreRightsMissing(
            f"the role {role} lacks rights in the store ({shown}); run `justenough store migrate --grant {role}` as the owner of its tables"
        )


def may_change_ledger(connection: Connection) -> bool:
    """Whether the connection's role could change or remove ledger entries, or disable the triggers that prevent it."""
    return bool(connection.execute(_MAY_CHANGE_LEDGER).scalar_one())


def grant_rights(connection: Connection, role: str) -> None:
    """Give a role these rights on the tables of the connection's schema, and revoke every other right on them. Raises StoreRightsMissing."""
    owner, is_ours = connection.execute(_LEDGER_OWNER).one()
    if not is_ours:
        # PostgreSQL would change nothing, and only warn about it.
        what = f"the role {current_role(connection)} may not grant rights in the store"
        raise StoreRightsMissing(f"{what}; run `justenough store migrate --grant {role}` as the owner of its tables ({owner})")
    found = connection.execute(_ROLE, {"role": role, "owner": owner}).first()
    if found is None:
        raise StoreRightsMissing(f"there is no role {role}: create it first, as in docs/how-to/store.md")
    if any(found):
        raise StoreRightsMissing(f"the role {role} owns the store's tables, so it has every right on them: grant them to another role")
    quote = connection.dialect.identifier_preparer.quote
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    connection.execute(text(f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)}"))
    for table, rights in RIGHTS.items():
        connection.execute(text(f"REVOKE ALL ON {quote(table)} FROM {quote(role)}"))
        connection.execute(text(f"GRANT {rights} ON {quote(table)} TO {quote(role)}"))
