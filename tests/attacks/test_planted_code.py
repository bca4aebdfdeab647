"""An approved admin job leaves code and tables in the shop's database, so that Vault's login, the superuser or other jobs run them."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.targets.postgres import END_USERS_SQL
from tests.support.people import Human
from tests.support.shop import Login, Shop, access, spec
from worker.stack.paths import StackPaths
from worker.stack.seed import load_shop

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]
BODY = """LANGUAGE plpgsql AS $x$
    BEGIN IF pg_catalog.to_regrole('{mark}') IS NULL THEN CREATE ROLE {mark}; END IF; RETURN {result}; END $x$"""
FUNCTIONS = {
    "format(text, text)": ("text", "pg_catalog.format($1, $2)"),
    "format(text, name)": ("text", "pg_catalog.format($1, $2)"),
    "quote_ident(varchar)": ("text", "pg_catalog.quote_ident($1)"),
    "to_regrole(varchar)": ("oid", "pg_catalog.to_regrole($1)"),
    "pg_terminate_backend(integer, bigint)": ("boolean", "true"),
    "je_open_space(varchar)": ("text", "'x'"),
    "je_end_users(varchar)": ("text", "'x'"),
}
"""Functions whose argument types match a call better than, or as well as, the function that the call means; and what they return."""


@dataclass(frozen=True)
class Plant:
    """What an attacker makes in a schema. `mark` is the role that it creates if it ever runs with the right to create roles."""

    schema: str
    mark: str

    def statements(self) -> Iterator[str]:
        """Yield everything that a login with CREATE on the schema can plant, one statement each."""
        for signature, (returns, result) in FUNCTIONS.items():
            yield f"CREATE FUNCTION {self.schema}.{signature} RETURNS {returns} " + BODY.format(mark=self.mark, result=result)
        yield f"CREATE FUNCTION {self.schema}.same(oid, bigint) RETURNS boolean " + BODY.format(mark=self.mark, result="true")
        yield f"CREATE OPERATOR {self.schema}.= (LEFTARG = oid, RIGHTARG = bigint, FUNCTION = {self.schema}.same)"
        yield f"CREATE TYPE {self.schema}.label AS ENUM ('a')"
        yield f"CREATE FUNCTION {self.schema}.to_label(text) RETURNS {self.schema}.label " + BODY.format(mark=self.mark, result="'a'")
        yield f"CREATE CAST (text AS {self.schema}.label) WITH FUNCTION {self.schema}.to_label(text) AS IMPLICIT"
        yield f"CREATE DOMAIN {self.schema}.oid AS text"
        yield f"CREATE TABLE {self.schema}.pg_stat_activity (pid integer, usesysid oid)"
        yield f"CREATE TABLE {self.schema}.helpers (id integer)"
        yield f"CREATE FUNCTION {self.schema}.fire() RETURNS trigger " + BODY.format(mark=self.mark, result="NULL")
        yield f"CREATE TRIGGER fire AFTER INSERT ON {self.schema}.helpers EXECUTE FUNCTION {self.schema}.fire()"


def run_all(connection: psycopg.Connection[Any], statements: Iterator[str]) -> list[str]:
    """Run each statement; return those that succeeded."""
    done = []
    for statement in statements:
        with contextlib.suppress(psycopg.Error):
            connection.execute(statement.encode())
            done.append(statement)
    return done


@dataclass(frozen=True)
class Issued:
    """A database credential that Vault issued as for a job."""

    lease: str
    login: Login


class Database:
    """The shop's database and its engine in Vault, as the administrator of both."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def issue(self, role: str, job: str) -> Issued:
        """Issue a credential as the worker does for a job."""
        with self.shop.admin() as vault:
            made = vault.post("auth/token/create", json={"display_name": job, "policies": ["root"], "ttl": "10m"}).raise_for_status()
            headers = {"X-Vault-Token": made.json()["auth"]["client_token"]}
            issued = vault.get(f"database/creds/{role}", headers=headers)
            assert issued.status_code == 200, issued.text
            return Issued(issued.json()["lease_id"], Login(issued.json()["data"]["username"], issued.json()["data"]["password"]))

    def revoke(self, issued: Issued) -> None:
        """Revoke a credential and wait for its user's end. Raises httpx.HTTPStatusError if Vault cannot end it."""
        with self.shop.admin() as vault:
            vault.put("sys/leases/revoke", json={"lease_id": issued.lease, "sync": True}).raise_for_status()
        assert not self.has_role(issued.login.user)

    @contextlib.contextmanager
    def log_in(self, issued: Issued) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection as the job."""
        with self.shop.connect(issued.login) as connection:
            connection.autocommit = True
            yield connection

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as the superuser, who runs nothing that is planted."""
        return psycopg.connect(self.shop.dsn, autocommit=True, options="-c search_path=pg_catalog")

    def values(self, query: str, *arguments: object) -> list[Any]:
        """Return the first column of a query's rows, as the superuser."""
        with self.connect() as connection:
            return [row[0] for row in connection.execute(query.encode(), arguments)]

    def run(self, statement: str) -> None:
        """Run a statement as the superuser."""
        with self.connect() as connection:
            connection.execute(statement.encode())

    def has_role(self, name: str) -> bool:
        """Whether a role exists."""
        return self.values("SELECT 1 FROM pg_roles WHERE rolname = %s", name) == [1]

    def reap(self, job: str) -> list[str]:
        """End a job's users and its space, as the superuser; return the names of what is gone."""
        return [*self.values("SELECT public.je_end_users(%s)", job), *self.values("SELECT public.je_end_space(%s)", job)]


@pytest.fixture
def database(shop: Shop) -> Database:
    return Database(shop)


@pytest.fixture
def job(database: Database) -> Iterator[str]:
    name = f"j-dev-{secrets.token_hex(13)}"
    yield name
    database.reap(name)


@pytest.fixture
def other_job(database: Database) -> Iterator[str]:
    name = f"j-dev-{secrets.token_hex(13)}"
    yield name
    database.reap(name)


@pytest.fixture
def mark(database: Database) -> Iterator[str]:
    """The name of a role that only planted code creates."""
    name = f"planted_{secrets.token_hex(6)}"
    yield name
    database.run(f"DROP ROLE IF EXISTS {name}")


OBJECTS_IN_PUBLIC = """
    SELECT (place.type, place.identity) FROM (
        SELECT 'pg_proc'::regclass AS classid, oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprnamespace = 'public'::regnamespace
        UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
    ) AS object, LATERAL pg_identify_object(object.classid, object.oid, 0) AS place
"""
"""Kind and name of each function, operator, table and type in `public`."""


@pytest.fixture
def open_database(database: Database, mark: str) -> Iterator[Plant]:
    """A database whose schema `public` somebody left open: yield what was planted in it."""
    before = set(database.values(OBJECTS_IN_PUBLIC))
    plant = Plant("public", mark)
    try:
        with database.connect() as connection:
            assert run_all(connection, plant.statements()) == list(plant.statements())
        yield plant
    finally:
        for kind, name in set(database.values(OBJECTS_IN_PUBLIC)) - before:
            database.run(f"DROP {kind} IF EXISTS {name} CASCADE")
    assert set(database.values(OBJECTS_IN_PUBLIC)) == before


def test_code_that_an_admin_job_plants_never_runs_as_vaults_login(database: Database, job: str, mark: str) -> None:
    before = database.values(OBJECTS_IN_PUBLIC)
    admin = database.issue("orders-admin", job)
    own = Plant(f'"space-{job}"', mark)
    with database.log_in(admin) as connection:
        assert run_all(connection, Plant("public", mark).statements()) == []
        assert run_all(connection, own.statements()) == list(own.statements())
    database.revoke(admin)
    assert database.reap(job) == [f"space-{job}"]
    assert not database.has_role(mark)
    assert database.values(OBJECTS_IN_PUBLIC) == before


NOT_ALLOWED = {
    "a schema": "CREATE SCHEMA mine",
    "an event trigger": "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION {space}.fire_on_ddl()",
    "a trigger on the shop's table": "CREATE TRIGGER mine AFTER INSERT ON public.orders EXECUTE FUNCTION {space}.fire()",
    "a policy on the shop's table": "CREATE POLICY mine ON public.orders USING (true)",
    "an index on the shop's table": "CREATE INDEX mine ON public.orders ({space}.same(id::oid, 1))",
    "a large object": "SELECT pg_catalog.lo_create(0)",
    "a temporary table": "CREATE TEMPORARY TABLE pg_roles (rolname name)",
    "another search path for Vault": "ALTER ROLE je_vault SET search_path = {space}",
    "its rights for another": "GRANT shop_orders_admin TO shop_orders_read_globex",
    "its table in another schema": "ALTER TABLE {space}.helpers SET SCHEMA public",
    "its function in another schema": "ALTER FUNCTION {space}.format(text, text) SET SCHEMA public",
}


@pytest.mark.parametrize("what", NOT_ALLOWED)
def test_an_admin_job_makes_nothing_outside_its_space(database: Database, job: str, mark: str, what: str) -> None:
    admin = database.issue("orders-admin", job)
    space = f'"space-{job}"'
    with database.log_in(admin) as connection:
        run_all(connection, Plant(space, mark).statements())
        connection.execute(f"CREATE FUNCTION {space}.fire_on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(NOT_ALLOWED[what].format(space=space).encode())
    database.revoke(admin)


def test_rows_that_an_admin_job_leaves_for_everybody_reach_no_other_job(database: Database, job: str, other_job: str) -> None:
    admin, reader = database.issue("orders-admin", job), database.issue("orders-read-globex", other_job)
    with database.log_in(admin) as connection, database.log_in(reader) as theirs:
        # PostgreSQL only warns that it granted nothing.
        connection.execute(f'GRANT ALL ON SCHEMA "space-{job}" TO PUBLIC'.encode())
        connection.execute("CREATE TABLE copied AS SELECT * FROM public.orders WHERE tenant = 'acme'")
        connection.execute("GRANT SELECT ON copied TO PUBLIC")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            theirs.execute(f'SELECT * FROM "space-{job}".copied'.encode())
        connection.close()
        database.revoke(admin)
        with pytest.raises(psycopg.errors.UndefinedTable):
            theirs.execute("SELECT * FROM copied")
    assert database.values("SELECT relname FROM pg_class WHERE relname = 'copied'") == []
    database.revoke(reader)


def test_vault_runs_no_code_from_an_open_schema(database: Database, open_database: Plant, job: str) -> None:
    for role in ("orders-admin", "orders-read-acme", "scratch-write"):
        database.revoke(database.issue(role, job))
    assert not database.has_role(open_database.mark)


def test_the_observer_and_the_reaper_run_no_code_from_an_open_schema(
    database: Database, open_database: Plant, job: str, ops: Human
) -> None:
    left, end, observe = (
        database.issue(role, name) for role, name in (("orders-read-acme", job), ("je-reaper", "me"), ("je-observer", "me"))
    )
    with database.log_in(end) as reaper:
        assert reaper.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)
        assert reaper.execute(END_USERS_SQL, [job]).fetchall()
    with database.log_in(observe) as observer:
        assert observer.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)
    assert not database.shop.can_log_in(left.login)
    for issued in (end, observe, left):
        database.revoke(issued)
    ended = ops.until(ops.launch(spec("true", access())), "succeeded")
    assert {item["state"] for item in ended["credentials"]} == {"confirmed"}
    assert not database.has_role(open_database.mark)


def test_a_changed_access_file_is_applied_without_running_code_from_an_open_schema(
    database: Database, open_database: Plant, tmp_path: Path
) -> None:
    config = shutil.copytree(database.shop.config, tmp_path / "config", ignore=shutil.ignore_patterns("__pycache__"))
    with (config / "data" / "access.sql").open("a") as script:
        script.write(f"\nSELECT pg_catalog.set_config('test.applied', '{open_database.mark}', false);\n")
    port = int(str(conninfo_to_dict(database.shop.dsn)["port"]))
    digest = database.values("SELECT digest FROM public.je_setup WHERE file = 'access'")
    load_shop(StackPaths(database.shop.stack.home), config=config, port=port)
    assert database.values("SELECT digest FROM public.je_setup WHERE file = 'access'") != digest
    assert not database.has_role(open_database.mark)
