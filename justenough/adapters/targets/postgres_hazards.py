"""What a job could do in a PostgreSQL target beside its task, and whether the target's SQL for ending users is this version's. Changes nothing.

The observer's rights suffice: catalogs and settings are readable by everyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.configuration.scaffold import END_USERS_SQL_FILE

SQL_VERSION = 1
"""What `je_sql_version()` of end_users.sql returns. A test compares the two."""
MAX_NAMES_SHOWN = 3
UNSAFE = re.compile(r"[^\w.@-]")
SHOWN_PARAMETERS = ("host", "hostaddr", "port", "dbname", "sslmode", "sslrootcert")
"""The parts of a target's address that a command needs. The catalog's text may contain more, such as a password."""
HOW_TO = "docs/how-to/deployment.md#databases-as-targets"
ALWAYS = "a job may change its own password, and its access still ends"
READABLE_VERSION_SQL = "SELECT coalesce(has_function_privilege(to_regprocedure('public.je_sql_version()'), 'EXECUTE'), false)"
VERSION_SQL = "SELECT public.je_sql_version()"
FIND_HAZARDS_SQL = """
    WITH vault AS (
        SELECT maker.oid FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles observer ON observer.oid = m.roleid JOIN pg_catalog.pg_roles maker ON maker.oid = m.member
        WHERE observer.rolname = session_user AND m.admin_option AND maker.rolcreaterole AND NOT maker.rolsuper
    ), groups AS (
        SELECT DISTINCT g.oid, g.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
        WHERE m.member IN (SELECT oid FROM vault) AND m.admin_option AND NOT g.rolcanlogin AND g.rolname !~ 'j-[a-z0-9]{1,8}-[0-9a-z]{26}'
    ), dependencies AS (
        SELECT g.rolname, d.deptype, d.classid = 'pg_catalog.pg_default_acl'::pg_catalog.regclass AS is_default
        FROM pg_catalog.pg_shdepend d JOIN groups g ON g.oid = d.refobjid
        WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
            AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
    )
    SELECT
        EXISTS (SELECT FROM vault),
        EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'je_guard_groups' AND evtenabled IN ('O', 'A')
            AND evtevent = 'ddl_command_start' AND evttags @> ARRAY['DROP OWNED', 'ALTER DEFAULT PRIVILEGES']
        ),
        EXISTS (
            SELECT FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
            WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND p.proname ~ '^pg_(try_)?advisory_(xact_)?lock'
            AND a.grantee = 0 AND a.privilege_type = 'EXECUTE'
        ),
        pg_catalog.current_setting('max_prepared_transactions')::integer,
        pg_catalog.current_setting('temp_file_limit') <> '-1',
        ARRAY(
            SELECT DISTINCT n.nspname || '.' || c.relname FROM pg_catalog.pg_policy p
            JOIN pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE p.polroles && ARRAY(SELECT oid FROM groups) AND n.nspname !~ '^space-j-' ORDER BY 1
        ),
        ARRAY(SELECT DISTINCT rolname::text FROM dependencies WHERE is_default ORDER BY 1),
        ARRAY(SELECT DISTINCT rolname::text FROM dependencies WHERE NOT is_default AND deptype = 'o' ORDER BY 1),
        ender.rolname::text, coalesce(ender.rolsuper, true), pg_catalog.pg_get_userbyid(d.datdba)::text
    FROM pg_catalog.pg_database d
    LEFT JOIN pg_catalog.pg_proc p ON p.oid = pg_catalog.to_regprocedure('public.je_end_users(text, text)')
    LEFT JOIN pg_catalog.pg_roles ender ON ender.oid = p.proowner
    WHERE d.datname = pg_catalog.current_database()
"""
"""Vault's login is the maker of the observer: PostgreSQL gives a maker of roles the ADMIN option on each. The groups of jobs are the roles that it
may grant and nobody logs in as. Users and spaces of jobs are left out.
"""


@dataclass(frozen=True, slots=True)
class Hazard:
    """One thing that a job could do, and how to prevent it."""

    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class PostgresHazards:
    """What was read in one target."""

    conninfo: str
    """Where the target is, without a user or password."""
    sql_version: int | None
    """What `je_sql_version()` returns; None if it is missing or the observer may not call it."""
    knows_vault_login: bool
    """Whether Vault's login was found. It is not if it is a superuser. Then the groups are unknown."""
    has_guard: bool
    has_advisory_locks: bool
    max_prepared_transactions: int
    has_temp_file_limit: bool
    policy_tables: tuple[str, ...]
    """Tables with row policies that name a group."""
    default_privilege_groups: tuple[str, ...]
    """Groups that default privileges name, or that have their own."""
    owning_groups: tuple[str, ...]

    sql_owner: str | None = None
    """Who owns `je_end_users(job, step)`; None if there is none."""
    is_sql_owner_super: bool = True
    database_owner: str = ""

    @property
    def is_sql_old(self) -> bool:
        return self.sql_version is None or self.sql_version < SQL_VERSION

    def hazards(self) -> Iterator[Hazard]:
        """Yield what is wrong with the SQL, and what a job could do that can be prevented."""
        if self.is_sql_old:
            if self.sql_version is None:
                found = f"there is no je_sql_version(), so its SQL is older than version {SQL_VERSION}"
            else:
                found = f"its SQL has version {self.sql_version}, and this version of JustEnough needs {SQL_VERSION}"
            # Earlier functions have other arguments, so they are not replaced.
            more = "" if self.sql_owner else f". What to drop before and to grant afterwards: CHANGELOG.md and {HOW_TO}"
            yield Hazard(found, f"Run {self._psql_command(None if self.is_sql_owner_super else self.sql_owner)}{more}")
        yield from self._powers_over_groups()
        if self.has_advisory_locks:
            yield Hazard(
                "a job could fill the lock table with advisory locks, and so delay the end of other jobs",
                f"As a superuser, take EXECUTE on pg_advisory_lock and its variants from PUBLIC: {HOW_TO}",
            )
        if self.max_prepared_transactions > 0:
            yield Hazard(
                f"max_prepared_transactions is {self.max_prepared_transactions}: a prepared transaction keeps its locks without a session",
                "Run ALTER SYSTEM SET max_prepared_transactions = 0 as a superuser, and restart the server",
            )
        if not self.has_temp_file_limit:
            database = conninfo_to_dict(self.conninfo).get("dbname") or "…"
            yield Hazard(
                "there is no temp_file_limit: a job could fill the disk",
                f"Run ALTER DATABASE \"{database}\" SET temp_file_limit = '1GB' as a superuser",
            )

    def _psql_command(self, owner: str | None = None) -> str:
        """Return the command that runs the SQL again: as a superuser, or as the database's owner in the name of this owner of the SQL."""
        options = "-v ON_ERROR_STOP=1 -1"
        if owner is None:
            superuser = self.sql_owner if self.sql_owner and self.is_sql_owner_super else "SUPERUSER"
            return f'psql "{self.conninfo} user={_plain(superuser)}" {options} -f {END_USERS_SQL_FILE}'
        before = f"""-c 'GRANT CREATE ON SCHEMA public TO "{_plain(owner)}"' -c 'SET ROLE "{_plain(owner)}"'"""
        after = f"""-c 'RESET ROLE' -c 'REVOKE CREATE ON SCHEMA public FROM "{_plain(owner)}"'"""
        return f'psql "{self.conninfo} user={_plain(self.database_owner)}" {options} {before} -f {END_USERS_SQL_FILE} {after}'

    def _powers_over_groups(self) -> Iterator[Hazard]:
        if not self.knows_vault_login:
            yield Hazard(
                "the groups of jobs are unknown, because no role with CREATEROLE made the observer",
                "Let Vault log in as a role with CREATEROLE that is no superuser",
            )
        if not self.has_guard:
            found = "there is no event trigger je_guard_groups: a job may run DROP OWNED BY its group"
            yield Hazard(found, f"If the server has a superuser, run {self._psql_command()}")
        if self.policy_tables and not self.has_guard:
            yield Hazard(
                f"a job could remove its group from row policies of {_first(self.policy_tables)}",
                "Write row policies for PUBLIC, with (SELECT pg_catalog.pg_has_role('GROUP', 'USAGE')) in the condition",
            )
        if self.default_privilege_groups and not self.has_guard:
            yield Hazard(
                f"a job could change default privileges of {_first(self.default_privilege_groups)}",
                "Take groups out of default privileges (ALTER DEFAULT PRIVILEGES … REVOKE), and grant rights on each object",
            )
        if self.owning_groups:
            yield Hazard(
                f"a job could alter and drop what its group owns: {_first(self.owning_groups)}",
                "Give it to a role that is no group of jobs (ALTER … OWNER TO …)",
            )


def find_hazards(connection: psycopg.Connection[Any], conninfo: str) -> PostgresHazards:
    """Read what a job could do in this target. Raises psycopg.Error."""
    # A function that is missing fails as soon as its name is parsed, so it cannot be called under a condition.
    is_readable = _read_row(connection, READABLE_VERSION_SQL)[0]
    version = int(_read_row(connection, VERSION_SQL)[0]) if is_readable else None
    knows_login, has_guard, has_locks, prepared, has_limit, tables, defaults, owners, *sql = _read_row(connection, FIND_HAZARDS_SQL)
    sql_owner, is_super, database_owner = sql
    where = {name: str(part) for name, part in conninfo_to_dict(conninfo).items() if name in SHOWN_PARAMETERS and part is not None}
    return PostgresHazards(
        conninfo=" ".join(f"{name}={where[name]}" for name in SHOWN_PARAMETERS if name in where),
        sql_version=version,
        knows_vault_login=knows_login,
        has_guard=has_guard,
        has_advisory_locks=has_locks,
        max_prepared_transactions=prepared,
        has_temp_file_limit=has_limit,
        policy_tables=tuple(tables),
        default_privilege_groups=tuple(defaults),
        owning_groups=tuple(owners),
        sql_owner=sql_owner,
        is_sql_owner_super=is_super,
        database_owner=database_owner,
    )


def _read_row(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row


def _first(names: tuple[str, ...]) -> str:
    left = len(names) - MAX_NAMES_SHOWN
    return ", ".join(map(_plain, names[:MAX_NAMES_SHOWN])) + (f" and {left} more" if left > 0 else "")


def _plain(name: str) -> str:
    # Names may be anything that somebody in the target has chosen, and some end up in a command.
    return re.sub(UNSAFE, "?", name)
