"""A job's space in the shop's PostgreSQL: only users of the job reach it, and it is dropped with all its objects."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.worker.stack.conftest import SHOP
from tests.worker.stack.postgres_logins import Login
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers
Job = str
Enter = Callable[[Job], "psycopg.Connection[Any]"]


@pytest.fixture
def job(admin: psycopg.Connection[Any]) -> Iterator[Job]:
    yield from _jobs(admin)


@pytest.fixture
def other(admin: psycopg.Connection[Any]) -> Iterator[Job]:
    yield from _jobs(admin)


def _jobs(admin: psycopg.Connection[Any]) -> Iterator[Job]:
    name = f"j-dev-{secrets.token_hex(13)}"
    yield name
    admin.execute("SELECT public.je_end_users(%s)", (name,))
    admin.execute("SELECT public.je_end_space(%s)", (name,))
    assert left_of(admin, name) == set()


@pytest.fixture
def enter(servers: Stack, vault_login: psycopg.Connection[Any]) -> Iterator[Enter]:
    """Yield a function that creates another user of a job and opens the job's space for it, like Vault."""
    opened: list[psycopg.Connection[Any]] = []

    def make(job: Job) -> psycopg.Connection[Any]:
        user, password = f"{secrets.token_hex(4)}-token-{job}-scratch-write"[:63], secrets.token_hex(8)
        with vault_login.transaction():
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT 8 IN ROLE shop_scratch")
            vault_login.execute(create.format(sql.Identifier(user), sql.Literal(password)))
            vault_login.execute("SELECT public.je_open_space(%s)", (user,))
        opened.append(psycopg.connect(servers.shop_dsn or "", user=user, password=password, autocommit=True))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


def left_of(admin: psycopg.Connection[Any], job: Job) -> set[str]:
    """Return the schemas and roles whose names contain a job's id."""
    query = "SELECT nspname FROM pg_namespace WHERE strpos(nspname, %(job)s) > 0 UNION SELECT rolname FROM pg_roles WHERE strpos(rolname, %(job)s) > 0"
    return {name for (name,) in admin.execute(query, {"job": job})}


def end_user(vault_login: psycopg.Connection[Any], user: str) -> None:
    """End one user with the revocation statements of its lease."""
    for statement in ("DROP OWNED BY {}", "DROP ROLE {}"):
        vault_login.execute(sql.SQL(statement).format(sql.Identifier(user)))


def reap_job(login: Login, job: Job) -> tuple[list[str], list[str]]:
    """End a job's users and then its space, as the reaper; return their names."""
    reaper = login("shop_reaper")
    users, spaces = (reaper.execute(f"SELECT je_end_{what}(%s)".encode(), (job,)).fetchall() for what in ("users", "space"))
    return [name for (name,) in users], [name for (name,) in spaces]


@contextlib.contextmanager
def bypass_counting(servers: Stack, job: Job) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection that creates objects in the job's space like its users, but no event trigger counts them."""
    with psycopg.connect(servers.shop_dsn or "", autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(f'SET ROLE "space-{job}"'.encode())
        yield connection


def fill(user: psycopg.Connection[Any], shortcut: psycopg.Connection[Any], statement: str) -> None:
    """Run a statement with increasing numbers until the user's is refused. The user runs each tenth, because counting the space's parts takes long."""
    for number in range(4000):
        (shortcut if number % 10 else user).execute(statement.format(number=number).encode())


def test_objects_of_one_user_belong_to_the_next_user_too_and_outlive_it(
    job: Job, enter: Enter, vault_login: psycopg.Connection[Any]
) -> None:
    first = enter(job)
    first.execute("CREATE TABLE found (id int); INSERT INTO found VALUES (1)")
    second = enter(job)
    second.execute("ALTER TABLE found ADD COLUMN note text")
    user = first.info.user
    first.close()
    end_user(vault_login, user)
    assert second.execute("SELECT id, note FROM found").fetchall() == [(1, None)]
    second.execute("DROP TABLE found")


def test_two_users_at_once_get_the_same_space(job: Job, enter: Enter, servers: Stack, admin: psycopg.Connection[Any]) -> None:
    names = [f"{number:08d}-token-{job}-scratch-write"[:63] for number in range(8)]
    for name in names:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    failed: list[Exception] = []

    def opens(name: str) -> None:
        try:
            with psycopg.connect(servers.shop_dsn or "") as connection:
                connection.execute("SELECT public.je_open_space(%s)", (name,))
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=opens, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert left_of(admin, job) == {*names, f"space-{job}"}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM public.orders",
        "CREATE TABLE public.mine (id int)",
        "CREATE TEMP TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "SELECT lo_create(0)",
        'SELECT * FROM "space-{other}".found',
        'CREATE TABLE "space-{other}".mine (id int)',
        'SET ROLE "space-{other}"',
        'ALTER SCHEMA "space-{job}" RENAME TO hidden',
        "ALTER TABLE own SET SCHEMA public",
        'ALTER SCHEMA "space-{job}" OWNER TO current_user',
        'GRANT "space-{job}" TO "space-{other}"',
        "SET temp_file_limit = -1",
        "SELECT public.je_end_space('{job}')",
        "SELECT public.je_open_space(session_user)",
        "RESET ROLE; SET ROLE NONE; CREATE TABLE mine (id int)",
    ],
)
def test_a_space_gives_no_access_outside_of_it(job: Job, other: Job, enter: Enter, statement: str) -> None:
    enter(other).execute("CREATE TABLE found (id int)")
    user = enter(job)
    user.execute("CREATE TABLE own (id int)")
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName)):
        user.execute(statement.format(job=job, other=other).encode())


def test_limits_apply_from_the_login_on_and_a_job_can_only_change_statement_timeout(job: Job, enter: Enter) -> None:
    user = enter(job)
    show = "SELECT current_setting('temp_file_limit'), current_setting('statement_timeout'), current_user, session_user"
    name = user.info.user
    assert user.execute(show).fetchall() == [("1GB", "5min", f"space-{job}", name)]
    user.execute("SET statement_timeout = 0")
    assert user.execute(show).fetchall() == [("1GB", "0", f"space-{job}", name)]
    user.execute("SET ROLE NONE")
    user.execute("ALTER ROLE CURRENT_USER RESET ALL")
    with psycopg.connect(user.info.dsn, password=user.info.password) as again:
        assert again.execute("SELECT current_setting('temp_file_limit')").fetchall() == [("1GB",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        user.execute("ALTER ROLE CURRENT_USER SET temp_file_limit = -1")


def test_the_shops_access_script_can_run_while_jobs_have_spaces(job: Job, enter: Enter, admin: psycopg.Connection[Any]) -> None:
    user = enter(job)
    user.execute("CREATE TABLE found (id int)")
    with admin.transaction():
        admin.execute((SHOP / "data" / "access.sql").read_bytes())
    assert enter(job).execute("SELECT count(*) FROM found").fetchall() == [(0,)]


def test_a_job_cannot_grant_others_access_to_its_space(job: Job, other: Job, enter: Enter, servers: Stack) -> None:
    user, notices = enter(job), []
    user.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    user.execute(f'CREATE TABLE found (id int); GRANT ALL ON found TO PUBLIC; GRANT ALL ON SCHEMA "space-{job}" TO PUBLIC'.encode())
    assert notices == [f'no privileges were granted for "space-{job}"']
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        enter(other).execute(f'SELECT * FROM "space-{job}".found'.encode())


def test_a_space_is_dropped_with_its_objects_while_sessions_use_it(
    job: Job, other: Job, enter: Enter, login: Login, admin: psycopg.Connection[Any]
) -> None:
    user, spared = enter(job), enter(other)
    spared.execute("CREATE TABLE found AS SELECT 1 AS id")
    user.execute(
        """
        CREATE TYPE mood AS ENUM ('well', 'ill');
        CREATE TABLE parent (id serial PRIMARY KEY, mood mood, body text);
        INSERT INTO parent (mood, body) SELECT 'well', repeat(md5(n::text), 100) FROM generate_series(1, 20000) n;
        CREATE TABLE child (id int REFERENCES parent, at date) PARTITION BY RANGE (at);
        CREATE TABLE child_one PARTITION OF child FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE MATERIALIZED VIEW seen AS SELECT * FROM parent;
        CREATE VIEW again AS SELECT * FROM seen;
        CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
        CREATE INDEX by_twice ON parent (md5(body));
        CREATE DOMAIN small AS int CHECK (VALUE < 10);
        GRANT SELECT ON parent TO PUBLIC;
        """
    )
    writing = enter(job)
    writing.execute("BEGIN")
    writing.execute("UPDATE parent SET mood = 'ill'")

    users, spaces = reap_job(login, job)

    assert (len(users), spaces) == (2, [f"space-{job}"])
    assert left_of(admin, job) == set()
    for session in (user, writing):
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert spared.execute("SELECT id FROM found").fetchall() == [(1,)]


def test_a_space_stays_while_its_job_has_a_user(job: Job, enter: Enter, login: Login, admin: psycopg.Connection[Any]) -> None:
    user = enter(job)
    assert login("shop_reaper").execute("SELECT public.je_end_space(%s)", (job,)).fetchall() == []
    user.execute("CREATE TABLE found (id int)")
    assert f"space-{job}" in left_of(admin, job)


def test_a_locked_space_stays_and_is_dropped_by_the_next_call(job: Job, enter: Enter, login: Login, admin: psycopg.Connection[Any]) -> None:
    enter(job).execute("CREATE TABLE found (id int)")
    with admin.transaction():
        admin.execute(f'SELECT * FROM "space-{job}".found'.encode())
        users, spaces = reap_job(login, job)
        assert (len(users), spaces) == (1, [])
        assert left_of(admin, job) == {f"space-{job}"}
    assert reap_job(login, job) == ([], [f"space-{job}"])


REFERENCES = ", ".join(["ADD FOREIGN KEY (id) REFERENCES hub"] * 40)


@pytest.mark.parametrize(
    "works_as_space, statement",
    [
        (True, "CREATE TABLE t{number} (id serial PRIMARY KEY, a text UNIQUE DEFAULT 'x', b int NOT NULL CHECK (b > 0))"),
        (True, f"ALTER TABLE spoke {REFERENCES}"),
        (False, "CREATE TYPE t{number} AS (a int)"),
        (True, "CREATE VIEW v{number} AS SELECT id AS a{number} FROM hub"),
    ],
    ids=["tables", "references", "types of an admin", "views"],
)
def test_a_space_at_its_limit_can_be_dropped_and_cannot_grow(
    servers: Stack, job: Job, enter: Enter, login: Login, admin: psycopg.Connection[Any], *, works_as_space: bool, statement: str
) -> None:
    user = enter(job) if works_as_space else login("shop_orders_admin", name=f"aaaaaaaa-token-{job}-orders-admin", space=True)
    user.execute("CREATE TABLE hub (id int PRIMARY KEY); CREATE TABLE spoke (id int)")
    with bypass_counting(servers, job) as shortcut, pytest.raises(psycopg.errors.ProgramLimitExceeded, match="at most 4000 parts"):
        fill(user, shortcut, statement)
    assert reap_job(login, job)[1] == [f"space-{job}"]
    assert left_of(admin, job) == set()


def test_a_space_without_its_role_or_schema_is_ended_too(job: Job, login: Login, admin: psycopg.Connection[Any]) -> None:
    admin.execute(f'CREATE ROLE "space-{job}"'.encode())
    assert reap_job(login, job) == ([], [f"space-{job}"])
    admin.execute(f'CREATE SCHEMA "space-{job}"'.encode())
    assert reap_job(login, job) == ([], [f"space-{job}"])
    assert reap_job(login, job) == ([], [])


@pytest.mark.parametrize(
    "name", ["postgres", "je_vault", "shop_orders_admin", "nobody-token-j-dev-00000000000000000000000000-x", "a-token-j-x-y"]
)
def test_only_a_user_of_a_job_gets_a_space(vault_login: psycopg.Connection[Any], name: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not a user of a job"):
        vault_login.execute("SELECT public.je_open_space(%s)", (name,))


@pytest.mark.parametrize("malformed", [None, "", "%", "j-dev-%", "j-dev-01JD0000000000000000000000", 'j-dev-0" CASCADE; --'])
def test_the_reaper_ends_no_space_of_an_invalid_job_id(login: Login, malformed: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not a job id"):
        login("shop_reaper").execute("SELECT public.je_end_space(%s)", (malformed,))
