"""Resources that `catalog add` wrote, on real servers: a database whose owner is no superuser, a Redis, a CA, an API key. `vault try` shows what works."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import Result

from justenough.adapters.targets.postgres_hazards import PostgresHazards, find_hazards
from tests.activities.issuing.test_redis import Redis, redis
from tests.worker.provisioning.provisioned_shop import Emptied, Shop

pytestmark = pytest.mark.servers
__all__ = ["redis"]
OWNER, PASSWORD = "je-owner", "a-password-of-the-owner"


@dataclass(frozen=True)
class Own:
    """An empty Vault namespace, and a configuration folder of one's own."""

    vault: Emptied
    folder: Path
    server: str
    """host:port of PostgreSQL."""

    def run(self, *words: str) -> Result:
        """Run a command as an administrator of Vault."""
        passwords = {f"{name}_VAULT_PASSWORD": PASSWORD for name in ("BILLING", "SALES", "BASKETS")}
        return self.vault.command(*words, JUSTENOUGH_CONFIG=str(self.folder), **passwords)

    def add(self, *words: str) -> None:
        added = self.run("catalog", "add", *words)
        assert added.exit_code == 0, added.stderr

    def run_sql(self, name: str, *, database: str | None = None) -> None:
        """Run the resource's SQL as the owner of its database, as `catalog add` says."""
        command = ("psql", self.as_owner(database or name), "-v", "ON_ERROR_STOP=1", "-v", f"password={PASSWORD}", "-1", "-q")
        subprocess.run((*command, "-f", str(self.folder / "sql" / f"{name}.sql")), check=True, capture_output=True)

    def as_owner(self, name: str) -> str:
        return f"postgresql://{OWNER}:{PASSWORD}@{self.server}/{name}"

    def apply(self) -> None:
        done = self.run("vault", "apply", "--change-shared")
        assert done.exit_code == 0, done.stderr

    def try_out(self, resource: str, action: str = "read") -> dict[str, tuple[str, str]]:
        """Return the result of each step, and what was found."""
        done = self.run("vault", "try", resource, action, "-o", "json")
        steps = {step["step"]: (step["outcome"], step["found"]) for step in json.loads(done.stdout)["steps"]}
        assert done.exit_code == (1 if any(outcome == "failed" for outcome, _ in steps.values()) else 0), done.stderr
        return steps

    def users(self, name: str, *, like: str) -> list[str]:
        with psycopg.connect(self.as_owner(name)) as connection:
            return [row[0] for row in connection.execute("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %s", [like])]


@pytest.fixture
def own(shop: Shop, empty: Emptied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    with shop.database() as superuser:
        superuser.execute(f"CREATE ROLE \"{OWNER}\" LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'")
        for database in ("billing", "sales"):
            superuser.execute(f'CREATE DATABASE {database} OWNER "{OWNER}"')
    where = conninfo_to_dict(shop.superuser)
    folder = tmp_path / "config"
    monkeypatch.chdir(tmp_path)
    own = Own(empty, folder, f"{where['host']}:{where['port']}")
    assert own.run("init", str(folder)).exit_code == 0
    empty.write("sys/auth/people", type="userpass")
    yield own
    with shop.database() as superuser:
        for database in ("billing", "sales"):
            superuser.execute(f"DROP DATABASE {database} WITH (FORCE)")
        for (role,) in superuser.execute("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname ~ '^(billing|sales)_'").fetchall():
            superuser.execute(f'DROP OWNED BY "{role}"')
            superuser.execute(f'DROP ROLE "{role}"')
        superuser.execute(f'DROP OWNED BY "{OWNER}"')
        superuser.execute(f'DROP ROLE "{OWNER}"')


def outcomes(steps: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {step: outcome for step, (outcome, _) in steps.items()}


ALL_OK = dict.fromkeys(("issue", "find in target", "log in", "revoke", "verify", "end in target"), "ok")


def test_jobs_use_a_database_whose_owner_is_not_a_superuser(own: Own) -> None:
    with psycopg.connect(own.as_owner("billing")) as connection:
        connection.execute("CREATE TABLE invoices (id int, amount int)")
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing")
    own.run_sql("billing")
    own.run_sql("billing")
    own.apply()

    for action in ("read", "write"):
        assert outcomes(own.try_out("billing", action)) == ALL_OK
    assert own.users("billing", like="%-token-j-%-billing-%") == []
    assert own.run("vault", "plan").exit_code == 0


def test_users_reach_their_schema_with_the_rights_of_their_action_and_nothing_else(own: Own) -> None:
    with psycopg.connect(own.as_owner("billing")) as connection:
        connection.execute("CREATE SCHEMA finance")
        connection.execute("CREATE TABLE finance.invoices (id int)")
        connection.execute("CREATE TABLE public.others (id int)")
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing", "--schema", "finance")
    own.run_sql("billing")
    own.apply()

    def refusal(action: str, sql: str) -> str | None:
        issued: dict[str, Any] = own.vault.read(f"database/creds/billing-{action}")
        try:
            with psycopg.connect(f"postgresql://{own.server}/billing", user=issued["username"], password=issued["password"]) as connection:
                connection.execute(sql)
        except psycopg.Error as error:
            return type(error).__name__
        return None

    assert refusal("read", "SELECT * FROM invoices") is None
    assert refusal("write", "INSERT INTO invoices VALUES (1)") is None
    assert refusal("read", "INSERT INTO invoices VALUES (1)") == "InsufficientPrivilege"
    assert refusal("write", "SELECT * FROM public.others") == "InsufficientPrivilege"
    assert refusal("write", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'") == "InsufficientPrivilege"
    assert refusal("write", "SELECT public.je_end_users('j-dev-00000000000000000000000000')") == "InsufficientPrivilege"
    assert refusal("observer", "SELECT * FROM finance.invoices") == "InsufficientPrivilege"
    assert refusal("reaper", "SELECT public.je_end_users('j-dev-00000000000000000000000000')") is None
    assert refusal("reaper", "SELECT public.je_end_users('%')") == "InvalidParameterValue"


def test_a_database_whose_owner_is_not_a_superuser_gets_the_sql_again_by_the_command_that_doctor_prints(own: Own) -> None:
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing")
    own.run_sql("billing")
    own.apply()

    def look() -> PostgresHazards:
        issued: dict[str, Any] = own.vault.read("database/creds/billing-observer")
        where = f"host={own.server.partition(':')[0]} port={own.server.partition(':')[2]} dbname=billing"
        with psycopg.connect(where, user=issued["username"], password=issued["password"]) as connection:
            return find_hazards(connection, where)

    assert [hazard.found.partition(":")[0] for hazard in look().hazards()] == [
        "there is no event trigger je_guard_groups",
        "a job could fill the lock table with advisory locks, and so delay the end of other jobs",
        "there is no temp_file_limit",
    ]
    with psycopg.connect(own.as_owner("billing")) as connection:
        connection.execute("DROP FUNCTION public.je_sql_version()")
    old = look()
    assert old.is_sql_old
    command = next(old.hazards()).remedy.removeprefix("Run ")
    subprocess.run(shlex.split(command), check=True, capture_output=True, env={**os.environ, "PGPASSWORD": PASSWORD})
    assert not look().is_sql_old
    assert outcomes(own.try_out("billing")) == ALL_OK


def test_the_sql_fails_while_everybody_may_create_objects_in_the_schema(own: Own, shop: Shop) -> None:
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing")
    with psycopg.connect(shop.superuser, dbname="billing", autocommit=True) as superuser:
        superuser.execute("ALTER SCHEMA public OWNER TO CURRENT_USER")
        superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        with pytest.raises(subprocess.CalledProcessError) as failed:
            own.run_sql("billing")
        assert b"everybody may create objects in the schema public" in failed.value.stderr
        superuser.execute("ALTER SCHEMA public OWNER TO pg_database_owner")

    own.run_sql("billing")
    with psycopg.connect(own.as_owner("billing")) as connection:
        assert connection.execute("SELECT has_schema_privilege('billing_read', 'public', 'CREATE')").fetchone() == (False,)


def test_two_resources_of_one_database_end_each_others_users(own: Own) -> None:
    with psycopg.connect(own.as_owner("billing")) as connection:
        connection.execute('CREATE SCHEMA "order"')  # a word of SQL
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing")
    own.add("postgres", "sales", "--url", f"postgresql://{own.server}/billing", "--schema", "order")
    for name in ("billing", "sales", "billing"):
        own.run_sql(name, database="billing")
    with psycopg.connect(own.as_owner("billing")) as connection:
        # The database was created again, and the server has kept the roles.
        connection.execute("DROP ROUTINE public.je_end_users(text, text), public.je_end_user(text), public.je_end_step(text, text)")
        connection.execute("DROP ROUTINE public.je_left_of(text), public.je_sql_version()")
    for name in ("sales", "billing", "sales"):
        own.run_sql(name, database="billing")
    own.apply()

    for name in ("billing", "sales"):
        assert outcomes(own.try_out(name)) == ALL_OK
        assert own.users("billing", like=f"%-token-j-%-{name}-%") == []


def test_two_databases_of_one_server_do_not_end_each_others_users(own: Own) -> None:
    for name in ("billing", "sales"):
        own.add("postgres", name, "--url", f"postgresql://{own.server}/{name}")
        own.run_sql(name)
    own.apply()
    with psycopg.connect(own.as_owner("billing")) as connection:
        connection.execute('CREATE ROLE "x-token-j-dev-00000000000000000000000001-x"')

    for name in ("billing", "sales"):
        assert outcomes(own.try_out(name)) == ALL_OK
    assert own.users("sales", like="x-token-j-%") == ["x-token-j-dev-00000000000000000000000001-x"]
    with psycopg.connect(own.as_owner("billing")) as connection:
        connection.execute('DROP ROLE "x-token-j-dev-00000000000000000000000001-x"')


MISTAKES = (
    ("observe: database/creds/billing-observer", "observe: database/creds/nobody", "find in target", "database/creds/nobody"),
    ("dbname=billing", "dbname=postgres", "find in target", "permission denied for database"),
    ("CALL public.je_end_user('{{name}}')", "SELECT 1", "verify", "revocation_statements have not ended it"),
    ("end: database/creds/billing-reaper", "end: database/creds/billing-observer", "end in target", "InsufficientPrivilege"),
)


def test_a_mistake_fails_its_step_and_what_was_issued_is_revoked(own: Own) -> None:
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing")
    catalog = own.folder / "catalog.yaml"
    text = catalog.read_text()
    own.run_sql("billing")
    for old, new, step, why in MISTAKES:
        assert old in text
        catalog.write_text(text.replace(old, new))
        own.apply()

        steps = own.try_out("billing")

        assert [name for name in steps if name != "clean up"][-1] == step
        assert steps[step][0] == "failed"
        assert why in steps[step][1]
        assert own.vault.lists("sys/leases/lookup/database/creds/billing-read") == []
        if step == "verify":
            assert own.users("billing", like="%-token-j-%-billing-%") == [], "the trial has ended what Vault did not end"


def test_a_certificate_that_no_job_would_get_or_that_stays_out_of_the_crl_fails_its_step(own: Own) -> None:
    own.add("pki", "warehouse", "--url", "https://warehouse.example")
    own.add("ssh", "web", "--url", "ssh://deploy@web.example")
    own.apply()
    own.vault.write("warehouse/config/crl", auto_rebuild=True)
    step, why = own.try_out("warehouse")["verify"]
    assert step == "failed"
    assert "is not in the CRL that Vault serves" in why

    catalog = own.folder / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace(', ttl: "{ttl}s"', "").replace("generate_lease: true", "generate_lease: false"))
    own.apply()
    for resource, action in (("web", "write"), ("warehouse", "read")):
        step, why = own.try_out(resource, action)["issue"]
        assert step == "failed"
        assert "expires at" in why


def test_vault_try_of_an_unknown_resource_or_action_names_the_existing_ones(own: Own) -> None:
    own.add("postgres", "billing", "--url", f"postgresql://{own.server}/billing")
    for words, why in (
        (("biling",), "no resource 'biling'; did you mean 'billing'?"),
        (("billing", "admin"), "offers no admin"),
        (("billing", "read", "--data-scope", "tenant"), "--data-scope tenant: write KEY=VALUE"),
    ):
        refused = own.run("vault", "try", *words)
        assert refused.exit_code == 2
        assert why in refused.stderr
    unset = own.run("vault", "try", "billing")
    assert unset.exit_code == 1
    assert "worker.approle.json" in unset.stderr


def test_vault_try_shows_for_each_other_kind_what_revocation_can_do(own: Own, redis: Redis) -> None:
    own.add("redis", "baskets", "--url", f"redis://127.0.0.1:{redis.port}")
    catalog = own.folder / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("${BASKETS_VAULT_PASSWORD}", redis.password))
    own.add("pki", "warehouse", "--url", "https://warehouse.example")
    own.add("ssh", "web", "--url", "ssh://deploy@web.example")
    own.add("kv", "mail", "--url", "https://mail.example")
    own.apply()
    own.vault.write("kv/data/mail", data={"token": "t"})

    no_target = {"issue": "ok", "find in target": "not possible", "log in": "not possible"}
    assert outcomes(own.try_out("baskets")) == {**no_target, "revoke": "ok", "verify": "ok"}
    warehouse = own.try_out("warehouse")
    assert outcomes(warehouse) == {**no_target, "revoke": "ok", "verify": "ok"}
    assert "is in the CRL that Vault serves" in warehouse["verify"][1]
    assert own.vault.read("warehouse/config/auto-tidy")["tidy_revoked_certs"] is True, "else the CRL grows for ever"
    assert outcomes(own.try_out("web", "write")) == {**no_target, "revoke": "not possible", "verify": "not possible"}
    mail = own.try_out("mail")
    assert outcomes(mail) == {**no_target, "revoke": "not possible", "verify": "not possible"}
    assert "`revocable: never`" in mail["revoke"][1]
