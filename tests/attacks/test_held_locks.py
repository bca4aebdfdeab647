"""Jobs that hold locks, so that their own access, or that of others, cannot be ended: everything that the SQL of a job may do to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.targets.postgres import REFUSED_LOGIN
from tests.chaos.steps import launch_leashed
from tests.support.people import Human
from tests.support.shop import Login, Shop
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]
MAX_EXPOSURE_S = 15.0
"""How long after its job's end a login, or a right in an open session, may last at worst."""
OWN_ROW = """DO $$ BEGIN ALTER ROLE CURRENT_USER PASSWORD 'known'; COMMIT; ALTER ROLE CURRENT_USER PASSWORD 'known';
    PERFORM pg_catalog.pg_sleep(3000); END $$"""
OWN_SETTING = "DO $$ BEGIN ALTER ROLE CURRENT_USER SET work_mem = '1MB'; PERFORM pg_catalog.pg_sleep(3000); END $$"
ALL_LOCKS = """DO $$ DECLARE n bigint := 0; BEGIN LOOP
    BEGIN PERFORM pg_catalog.pg_advisory_lock(g) FROM pg_catalog.generate_series(n, n + 10000000) g; EXCEPTION WHEN OTHERS THEN NULL; END;
    n := n + 10000001; PERFORM pg_catalog.pg_sleep(0.002); END LOOP; END $$"""
"""Takes each lock that becomes free, too."""
SAVEPOINTS = """DO $$ DECLARE i integer; BEGIN FOR i IN 1..20000 LOOP
    BEGIN PERFORM pg_catalog.pg_current_xact_id(); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; PERFORM pg_catalog.pg_sleep(600); END $$"""
GROUP = "shop_orders_read_acme"


@pytest.fixture
def leash() -> Iterator[ExitStack]:
    """Holds jobs until it is closed."""
    with ExitStack() as opened:
        yield opened


def start_backend(shop: Shop, login: Login, statement: str, *, waits_for: str = "PgSleep") -> None:
    """Run a statement in a session whose client is then killed: the session lives on by itself."""
    quiet = subprocess.DEVNULL
    client = subprocess.Popen(psql_command(statement), env=os.environ | login_environment(shop, login), stdout=quiet, stderr=quiet)
    with superuser(shop) as watching:

        def waits() -> bool:
            query = "SELECT FROM pg_stat_activity WHERE usename = %s AND wait_event = %s"
            try:
                return watching.execute(query, (login.user, waits_for)).fetchone() is not None
            except psycopg.errors.OutOfMemory:
                # The lock table is full.
                return True

        until(waits, f"the attacker's session is in {waits_for}", within=120)
    client.kill()
    client.wait()


def psql_command(statement: str) -> list[str]:
    """Return the command that runs a statement with the login of its environment."""
    return [shutil.which("psql") or "psql", "-qc", statement]


def login_environment(shop: Shop, login: Login) -> dict[str, str]:
    """Return psql's variables for a login."""
    parts = conninfo_to_dict(shop.dsn)
    place = {"PGHOST": str(parts["host"]), "PGPORT": str(parts["port"]), "PGDATABASE": "shop"}
    return {"PGUSER": login.user, "PGPASSWORD": login.password, **place}


def place(shop: Shop) -> str:
    """Return the target's name in messages."""
    parts = conninfo_to_dict(shop.dsn)
    return f"{parts['host']}:{parts['port']}/shop"


@contextmanager
def superuser(shop: Shop) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shop.dsn, autocommit=True, options="-c search_path=pg_catalog") as connection:
        yield connection


@pytest.fixture
def report(record_testsuite_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Record the seconds of the table in docs/explanation/reliability.md: `make test ARGS="tests/attacks/test_held_locks.py --junitxml FILE"`."""
    return lambda whose, seconds: record_testsuite_property(f"{request.node.name}: {whose}", f"{seconds:.2f} s")


Report = Callable[[str, float], None]


def seconds_until_dead(shop: Shop, *logins: Login) -> float:
    """Return the seconds until none of these logins works."""
    began = time.monotonic()
    until(lambda: all(is_refused(shop, login) for login in logins), "every login is refused", within=200)
    return time.monotonic() - began


def is_refused(shop: Shop, login: Login) -> bool:
    """Whether the server refuses this user, not just any connection."""
    try:
        shop.connect(login).close()
    except psycopg.OperationalError as error:
        return REFUSED_LOGIN.search(str(error)) is not None
    return False


@pytest.mark.parametrize("statement", [OWN_ROW, OWN_SETTING, SAVEPOINTS], ids=["own row", "own setting", "savepoints"])
def test_what_a_session_holds_of_its_own_user_keeps_no_access_alive(
    ops: Human, shop: Shop, leash: ExitStack, report: Report, statement: str
) -> None:
    attacking, attacker = leash.enter_context(launch_leashed(ops, shop))
    reader = shop.connect(attacker)
    assert reader.execute("SELECT count(*) FROM orders").fetchone() == (7200,)
    with ExitStack() as other_leash:
        ending, other = other_leash.enter_context(launch_leashed(ops, shop))
        start_backend(shop, attacker, statement)

        began = time.monotonic()
        leash.close()
        other_leash.close()
        took = seconds_until_dead(shop, attacker, Login(attacker.user, "known"), other)

    report("both jobs", took)
    assert took < MAX_EXPOSURE_S
    with pytest.raises(psycopg.Error):
        reader.execute("SELECT count(*) FROM orders")
    for job, login in ((ending, other), (attacking, attacker)):
        view = ops.until(job, "succeeded")
        shop.assert_dead(view, login)
    assert time.monotonic() - began < 60


def test_a_full_lock_table_keeps_no_access_alive(ops: Human, shop: Shop, leash: ExitStack, report: Report) -> None:
    """Where advisory locks could not be taken away from jobs, as without a superuser."""
    attacking, attacker = leash.enter_context(launch_leashed(ops, shop))
    with superuser(shop) as granting, ExitStack() as other_leash:
        ending, other = other_leash.enter_context(launch_leashed(ops, shop))
        granting.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_lock(bigint) TO PUBLIC")
        try:
            start_backend(shop, attacker, ALL_LOCKS)
            # The job that ends in order is another one: the attacker goes on.
            other_leash.close()
            took = seconds_until_dead(shop, other)
            report("the other job", took)
            assert took < MAX_EXPOSURE_S
            shop.assert_dead(ops.until(ending, "succeeded"), other)
            leash.close()
            took = seconds_until_dead(shop, attacker)
            report("the attacker", took)
            assert took < MAX_EXPOSURE_S
            shop.assert_dead(ops.until(attacking, "succeeded"), attacker)
        finally:
            granting.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_advisory_lock(bigint) FROM PUBLIC")


def test_a_job_may_take_no_advisory_lock(ops: Human, shop: Shop, leash: ExitStack) -> None:
    _, attacker = leash.enter_context(launch_leashed(ops, shop))
    for call in ("pg_advisory_lock(1)", "pg_try_advisory_xact_lock(1, 2)", "pg_advisory_lock_shared(1)"):
        with shop.connect(attacker) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT {call}".encode())


@pytest.mark.parametrize("is_guarded", [True, False], ids=["event trigger", "no event trigger"])
def test_a_member_does_not_take_the_policies_of_its_group_apart(ops: Human, shop: Shop, leash: ExitStack, *, is_guarded: bool) -> None:
    _, attacker = leash.enter_context(launch_leashed(ops, shop))
    _, other = leash.enter_context(launch_leashed(ops, shop))
    with superuser(shop) as database:
        query = "SELECT count(*), string_agg(relacl::text, ' ') FROM pg_policy, pg_class WHERE relname IN ('orders', 'tickets')"
        before = database.execute(query).fetchone()
        if not is_guarded:
            database.execute("ALTER EVENT TRIGGER je_guard_groups DISABLE")
        try:
            with suppress(psycopg.errors.InsufficientPrivilege), shop.connect(attacker) as connection:
                connection.execute(f"DROP OWNED BY {GROUP}".encode())
                assert not is_guarded
        finally:
            database.execute("ALTER EVENT TRIGGER je_guard_groups ENABLE")
        assert database.execute(query).fetchone() == before
    for login in (attacker, other):
        with shop.connect(login) as connection:
            assert connection.execute("SELECT count(*), count(DISTINCT tenant) FROM orders").fetchone() == (7200, 1)


@pytest.mark.parametrize("is_guarded", [True, False], ids=["event trigger", "no event trigger"])
def test_a_lock_on_another_jobs_role_does_not_keep_that_job_overdue(
    ops: Human, shop: Shop, leash: ExitStack, report: Report, *, is_guarded: bool
) -> None:
    _, attacker = leash.enter_context(launch_leashed(ops, shop))
    holding = shop.connect(attacker)
    with ExitStack() as other_leash, superuser(shop) as database, closing(holding):
        ending, other = other_leash.enter_context(launch_leashed(ops, shop))
        if not is_guarded:
            database.execute("ALTER EVENT TRIGGER je_guard_groups DISABLE")
        try:
            with suppress(psycopg.errors.InsufficientPrivilege):
                holding.execute(f'ALTER DEFAULT PRIVILEGES FOR ROLE {GROUP} GRANT SELECT ON TABLES TO "{other.user}"'.encode())
                assert not is_guarded
        finally:
            database.execute("ALTER EVENT TRIGGER je_guard_groups ENABLE")
        other_leash.close()
        took = seconds_until_dead(shop, other)
        report("the other job", took)
        assert took < MAX_EXPOSURE_S
        view = ops.until(ending, "succeeded")
        assert {item["state"] for item in view["credentials"]} == {"confirmed"}
        assert "revocation.overdue" not in {entry["type"] for entry in ops.ledger(ending)}
        until(lambda: shop.users_of(ending) == [], "the sweep drops its role")


def test_a_session_that_postgres_cannot_end_has_no_rights_and_is_named(ops: Human, shop: Shop, leash: ExitStack, report: Report) -> None:
    """No interrupt is checked while two arrays are compared. These are small enough for that to end within a minute or two."""
    attacking, attacker = leash.enter_context(launch_leashed(ops, shop))
    comparing = "SELECT (SELECT array_agg(g) FROM generate_series(1, 150000) g) && (SELECT array_agg(-g) FROM generate_series(1, 150000) g)"
    with ExitStack() as other_leash, superuser(shop) as database:
        ending, other = other_leash.enter_context(launch_leashed(ops, shop))
        client = subprocess.Popen(psql_command(comparing), env=os.environ | login_environment(shop, attacker), stderr=subprocess.DEVNULL)
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND state = 'active'"
        until(lambda: database.execute(query, (attacker.user,)).fetchone(), "the statement runs")
        leash.close()
        took = seconds_until_dead(shop, attacker)
        report("the attacker", took)
        assert took < MAX_EXPOSURE_S
        other_leash.close()
        took = seconds_until_dead(shop, other)
        report("the other job", took)
        assert took < MAX_EXPOSURE_S
        shop.assert_dead(ops.until(ending, "succeeded"), other)
        if (row := database.execute(query, (attacker.user,)).fetchone()) is not None:
            groups = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s"
            assert database.execute(groups, (attacker.user,)).fetchone() == (0,)
            until(lambda: f"session in {place(shop)}: {row[0]} of {attacker.user}" in str(ops.ledger(attacking)), "the session is named")
        client.wait(timeout=300)
    shop.assert_dead(ops.until(attacking, "succeeded", within=300), attacker)
