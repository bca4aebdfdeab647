"""The shop in PostgreSQL: realistic rows, the same everywhere; each role reaches only its own tenant's rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.worker.stack.conftest import SHOP
from tests.worker.stack.postgres_logins import Login
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.pidfile import wait_until
from worker.stack.postgres import VAULT_LOGIN
from worker.stack.seed import load_shop
from worker.stack.stack_file import Stack

JOB, OTHER_JOB = "j-dev-01jd0000000000000000000000", "j-dev-01jd0000000000000000000001"
pytestmark = pytest.mark.servers


def query_value(connection: psycopg.Connection[Any], query: str, *values: object) -> Any:
    found = connection.execute(query.encode(), values).fetchone()
    return found[0] if found else None


def roles_of(connection: psycopg.Connection[Any], job: str) -> set[str]:
    return {name for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE position(%s IN rolname) > 0", (job,))}


TABLES = {"tenants": 2, "customers": 1_500, "orders": 12_000, "tickets": 1_600, "refunds": 1_470}
"""How many rows of the shop each of its tables has."""
DIGEST = "20394df13c7f680afed55923d5a909a095c12270085e8f53ac10822b674d846c"
"""The SHA-256 of these rows as PostgreSQL writes them, sorted."""


def test_the_loaded_shop_has_its_rows(admin: psycopg.Connection[Any]) -> None:
    added_by_tests = query_value(admin, "SELECT count(*) FROM refunds WHERE created_by <> 'support-desk'")
    found = {table: query_value(admin, f"SELECT count(*) FROM {table}") for table in TABLES}
    assert found | {"refunds": found["refunds"] - added_by_tests} == TABLES


def test_the_rows_are_the_same_on_every_machine(servers: Stack, admin: psycopg.Connection[Any]) -> None:
    admin.execute("CREATE DATABASE loaded_again")
    try:
        with psycopg.connect(servers.shop_dsn or "", dbname="loaded_again", options="-c timezone=Europe/Berlin") as again:
            for name in ("schema", "rows"):
                again.execute((SHOP / "data" / f"{name}.sql").read_bytes())
            rows = [text for table in TABLES for (text,) in again.execute(f"SELECT row::text FROM {table} AS row".encode())]
            assert hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest() == DIGEST
    finally:
        admin.execute("DROP DATABASE loaded_again WITH (FORCE)")


def test_another_configurations_schema_is_loaded_without_the_shops_rows(tmp_path: Path) -> None:
    data = tmp_path / "config" / "data"
    data.mkdir(parents=True)
    (data / "schema.sql").write_text("CREATE SCHEMA ward; CREATE TABLE ward.beds (id int); CREATE TABLE public.orders (drug text);")
    (data / "access.sql").write_text(f"CREATE ROLE {VAULT_LOGIN} LOGIN;")
    home = tmp_path / "home"
    with running_stack(home, data.parent, only=("postgres",), provision=False) as stack, psycopg.connect(stack.shop_dsn or "") as database:
        database.execute("INSERT INTO public.orders VALUES ('aspirin')")
        database.commit()
        for config in (data.parent, tmp_path / "without-data"):
            load_shop(StackPaths(home), config=config, port=int(str(conninfo_to_dict(stack.shop_dsn or "")["port"])))
        assert database.execute("SELECT * FROM public.orders").fetchall() == [("aspirin",)]


def test_ticket_4711_asks_for_a_refund_of_a_delivered_order_without_one(admin: psycopg.Connection[Any]) -> None:
    ticket = admin.execute("SELECT tenant, kind, status, order_id, body FROM tickets WHERE id = 4711").fetchone()
    assert ticket is not None
    tenant, kind, status, order, body = ticket
    assert (tenant, kind, status) == ("acme", "refund", "open")
    assert str(order) in body
    assert query_value(admin, "SELECT status FROM orders WHERE tenant = 'acme' AND id = %s", order) == "delivered"
    assert query_value(admin, "SELECT count(*) FROM refunds WHERE created_by = 'support-desk' AND order_id = %s", order) == 0


@pytest.mark.parametrize("group, table", [("orders", "orders"), ("orders", "tickets"), ("refunds", "refunds"), ("customers", "customers")])
@pytest.mark.parametrize("tenant, foreign", [("acme", "globex"), ("globex", "acme")])
def test_a_reader_sees_only_rows_of_its_own_tenant(
    login: Login, admin: psycopg.Connection[Any], group: str, table: str, tenant: str, foreign: str
) -> None:
    reader = login(f"shop_{group}_read_{tenant}")
    assert (
        query_value(reader, f"SELECT count(*) FROM {table}")
        == query_value(admin, f"SELECT count(*) FROM {table} WHERE tenant = %s", tenant)
        > 0
    )
    assert query_value(reader, f"SELECT count(*) FROM {table} WHERE tenant = %s", foreign) == 0


@pytest.mark.parametrize(
    "group, statement",
    [
        ("shop_orders_read_acme", "UPDATE orders SET status = 'returned'"),
        ("shop_orders_read_acme", "SELECT * FROM customers"),
        ("shop_orders_read_acme", "SELECT * FROM refunds"),
        ("shop_orders_read_acme", "CREATE TABLE mine (id int)"),
        ("shop_orders_read_acme", "SET ROLE shop_orders_read_globex"),
        ("shop_refunds_write_acme", "SELECT reason FROM refunds"),
        ("shop_refunds_write_acme", "DELETE FROM refunds"),
        ("shop_refunds_write_acme", "SELECT * FROM orders"),
        ("shop_orders_write_acme", "DELETE FROM orders"),
        ("shop_orders_write_acme", "SELECT amount FROM orders"),
        ("shop_orders_admin", "TRUNCATE orders CASCADE"),
        ("shop_observer", "SELECT * FROM orders"),
        ("shop_reaper", "SELECT * FROM orders"),
        ("shop_observer", f"SELECT public.je_end_users('{JOB}')"),
        ("shop_orders_admin", f"SELECT public.je_end_users('{JOB}')"),
    ],
)
def test_a_group_is_refused_everything_it_was_not_granted(login: Login, group: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        login(group).execute(statement.encode())


def test_a_refund_writer_adds_a_refund_for_its_own_tenant_and_reads_its_number_back(login: Login) -> None:
    writer = login("shop_refunds_write_acme")
    insert = (
        "INSERT INTO refunds (tenant, order_id, ticket_id, amount, reason) VALUES ('acme', 105363, 4711, 12.50, 'damaged') RETURNING id"
    )
    assert query_value(writer, insert) > 50_000


def test_a_refund_writer_cannot_write_for_the_other_tenant(login: Login) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        login("shop_refunds_write_acme").execute("INSERT INTO refunds (tenant, order_id, amount, reason) VALUES ('globex', 200001, 1, 'x')")


def test_a_refund_for_an_order_of_the_other_tenant_is_refused(login: Login) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        login("shop_refunds_write_acme").execute("INSERT INTO refunds (tenant, order_id, amount, reason) VALUES ('acme', 200001, 1, 'x')")


def test_an_order_writer_changes_only_orders_of_its_own_tenant(login: Login) -> None:
    writer = login("shop_orders_write_acme")
    assert writer.execute("UPDATE orders SET status = status_now FROM (SELECT 'shipped' AS status_now) s WHERE id = 100001").rowcount == 1
    assert writer.execute("UPDATE orders SET status = 'shipped' WHERE id = 200001").rowcount == 0


def test_the_admin_role_reaches_both_tenants(login: Login, admin: psycopg.Connection[Any]) -> None:
    assert query_value(login("shop_orders_admin"), "SELECT count(*) FROM orders") == query_value(admin, "SELECT count(*) FROM orders")


def test_a_user_cannot_connect_to_the_other_databases(servers: Stack, login: Login) -> None:
    user = login("shop_orders_read_acme").info
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(servers.shop_dsn or "", user=user.user, password=user.password, dbname="postgres")


def test_vaults_database_user_is_not_a_superuser_and_reads_no_rows(vault_login: psycopg.Connection[Any]) -> None:
    assert query_value(vault_login, "SELECT rolsuper OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = current_user") is False
    for statement in (
        "SELECT * FROM public.orders",
        "SET ROLE shop_orders_read_acme",
        "ALTER ROLE postgres PASSWORD 'x'",
        "GRANT pg_read_all_data TO je_vault",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            vault_login.execute(statement)


def test_vaults_database_user_cannot_end_a_session_of_a_user_that_it_did_not_create(
    vault_login: psycopg.Connection[Any], admin: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        vault_login.execute("SELECT pg_terminate_backend(%s)", (admin.info.backend_pid,))


def test_the_observer_sees_users_and_sessions_of_a_job(login: Login) -> None:
    name = f"a-token-{JOB}-orders"
    job = login("shop_orders_read_acme", name=name)
    observer = login("shop_observer")
    assert roles_of(observer, JOB) == {name}
    assert (
        query_value(observer, "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND query <> '<insufficient privilege>'", name) == 1
    )
    assert query_value(job, "SELECT 1") == 1


def test_the_reaper_ends_the_users_of_one_job_with_open_sessions_and_what_they_own(
    login: Login, admin: psycopg.Connection[Any], servers: Stack
) -> None:
    mine, second, other = f"aaaaaaaa-token-{JOB}-orders-admin", f"bbbbbbbb-token-{JOB}-x", f"cccccccc-token-{OTHER_JOB}-orders-admin"
    session, spared = login("shop_orders_admin", name=mine, space=True), login("shop_orders_admin", name=other)
    login("shop_orders_read_acme", name=second)
    session.execute("CREATE TABLE helper (id int)")
    session.execute("BEGIN")
    session.execute("SELECT * FROM orders LIMIT 1")

    reaper = login("shop_reaper")
    ended = {name for (name,) in reaper.execute("SELECT public.je_end_users(%s)", (JOB,))}

    assert ended == {mine, second}
    assert roles_of(admin, JOB) == {f"space-{JOB}"}
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(servers.shop_dsn or "", user=mine, password=session.info.password)
    assert query_value(admin, "SELECT count(*) FROM pg_tables WHERE tablename = 'helper'") == 0
    assert roles_of(admin, OTHER_JOB) == {other}
    assert query_value(spared, "SELECT 1") == 1
    assert query_value(reaper, "SELECT public.je_end_space(%s)", JOB) == f"space-{JOB}"


def test_the_reaper_may_run_twice(login: Login) -> None:
    reaper = login("shop_reaper")
    assert reaper.execute("SELECT public.je_end_users(%s)", (JOB,)).fetchall() == []


def test_the_reaper_ends_a_user_that_another_user_created(login: Login, admin: psycopg.Connection[Any]) -> None:
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(f"restored-token-{JOB}-x")))
    assert login("shop_reaper").execute("SELECT public.je_end_users(%s)", (JOB,)).fetchall() == [(f"restored-token-{JOB}-x",)]
    assert roles_of(admin, JOB) == set()


def test_the_reaper_never_ends_a_superuser_whatever_its_name(login: Login, admin: psycopg.Connection[Any]) -> None:
    name = sql.Identifier(f"evil-token-{JOB}-x")
    admin.execute(sql.SQL("CREATE ROLE {} SUPERUSER").format(name))
    try:
        assert login("shop_reaper").execute("SELECT public.je_end_users(%s)", (JOB,)).fetchall() == []
    finally:
        admin.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        "",
        "%",
        "j-dev-%",
        "_" * 32,
        JOB[:-1],
        JOB + "0",
        JOB.upper(),
        JOB + "\n",
        "\n" + JOB,
        f"{JOB}' OR true",
        "j-toolongname-" + "0" * 26,
        "j--" + "0" * 26,
    ],
)
def test_the_reaper_refuses_an_invalid_job_id(login: Login, malformed: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not a job id"):
        login("shop_reaper").execute("SELECT public.je_end_users(%s)", (malformed,))


def test_vaults_database_user_ends_its_own_user_with_plain_statements(
    login: Login, vault_login: psycopg.Connection[Any], admin: psycopg.Connection[Any]
) -> None:
    name = f"dddddddd-token-{JOB}-orders-admin"
    session = login("shop_orders_admin", name=name, space=True)
    session.execute("CREATE TABLE helper_two (id int)")
    vault_login.execute("SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity WHERE usename = %s", (name,))
    for statement in ("DROP OWNED BY {}", "DROP ROLE {}"):
        vault_login.execute(sql.SQL(statement).format(sql.Identifier(name)))
    assert roles_of(admin, JOB) == {f"space-{JOB}"}
    assert wait_until(lambda: query_value(admin, "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", name) == 0, within=180)
    assert query_value(admin, "SELECT count(*) FROM pg_tables WHERE tablename = 'helper_two'") == 0
    assert query_value(login("shop_reaper"), "SELECT public.je_end_space(%s)", JOB) == f"space-{JOB}"
