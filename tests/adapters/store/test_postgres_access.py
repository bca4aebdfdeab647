"""Logins, TLS and rights on a server that requires all of them, and the error if one is wrong."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store, StoreRightsMissing, StoreUnavailable
from justenough.adapters.store.engine import UnusableUrl, open_database, read_transaction, write_transaction
from justenough.adapters.store.postgres_connection import LINK_LIMITS, PasswordFile
from justenough.adapters.store.rights import RIGHTS
from tests.adapters.store.conftest import (
    NOBODY,
    RUNTIME_ROLE,
    administer,
    as_role,
    database,
    new_database,
    running_postgres,
)
from tests.adapters.store.event_samples import JOB, submission
from tests.support.tls_authority import create_authority
from worker.stack.doctor.store import store_findings

pytestmark = pytest.mark.servers
PATIENCE_S = 60
"""Within which every error must be told."""
ACCESS = f"""
hostssl all {RUNTIME_ROLE} all scram-sha-256
hostnossl all {RUNTIME_ROLE} all reject
host all je_nobody all reject
"""


@dataclass(frozen=True, slots=True)
class SecuredServer:
    """A server that lets the runtime role in only with TLS and its password."""

    port: int
    database: str
    authority: Path
    stranger: Path

    def url(self, password: str = "", *, user: str = RUNTIME_ROLE, name: str | None = None, **options: object) -> str:
        query = {"sslmode": "verify-full", "sslrootcert": self.authority, "hostaddr": "127.0.0.1", **options}
        text = "&".join(f"{key}={value}" for key, value in query.items())
        return f"postgresql://{user}{password and ':' + password}@localhost:{self.port}/{name or self.database}?{text}"


def system_programs() -> Path:
    """The folder of the newest PostgreSQL of Debian's packages: the wheel's is built without TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    assert found, "no PostgreSQL that speaks TLS is installed: deploy/setup.sh targets"
    return found[-1]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    folder, strangers = tmp_path_factory.mktemp("authority"), tmp_path_factory.mktemp("stranger")
    authority, _ = create_authority(folder, "localhost")
    stranger, _ = create_authority(strangers, "localhost")
    with ExitStack() as stack:
        port, home = stack.enter_context(running_postgres(access=ACCESS, programs=system_programs()))
        pem = home / "server.pem"
        pem.write_bytes((folder / "localhost.pem").read_bytes())
        pem.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(pem, NOBODY, NOBODY)
        for setting in (f"ssl_cert_file = '{pem}'", f"ssl_key_file = '{pem}'", "ssl = on"):
            administer(port, f"ALTER SYSTEM SET {setting}")
        administer(port, "SELECT pg_reload_conf()")
        administer(port, f"CREATE ROLE {RUNTIME_ROLE} LOGIN PASSWORD 'first-password'")
        administer(port, "CREATE ROLE je_nobody LOGIN")
        url = new_database(port)
        with closing(Store(url)) as store:
            store.migrate(grant=RUNTIME_ROLE)
        yield SecuredServer(port, url.rpartition("/")[2], authority, stranger)


def test_the_store_is_used_with_tls_and_the_password_from_a_file(secured: SecuredServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first-password\n")
    with closing(Store(secured.url(), logins=PasswordFile(file))) as store:
        store.migrate()
        store.ledger.append([submission()])
        report = store.inspect().postgres
    assert report is not None
    assert (report.role, report.is_encrypted, report.missing_rights, report.may_change_ledger) == (RUNTIME_ROLE, True, (), False)


@pytest.mark.parametrize("mode, is_verified", [("require", False), ("verify-full", True)])
def test_the_check_says_whether_the_server_was_verified(secured: SecuredServer, mode: str, *, is_verified: bool) -> None:
    found = {finding.what: finding for finding in store_findings(Settings(database_url=secured.url("first-password", sslmode=mode)))}

    assert found["TLS"].level == "ok"
    assert ("and the server verified" in found["TLS"].found, "only sslmode=verify-full" in found["TLS"].found) == (
        is_verified,
        not is_verified,
    )


def test_a_rotated_password_is_read_at_the_next_connection(secured: SecuredServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first-password")
    with closing(Store(secured.url(), logins=PasswordFile(file))) as store:
        store.ping()
        administer(secured.port, f"ALTER ROLE {RUNTIME_ROLE} PASSWORD 'second-password'")
        try:
            file.write_text("second-password")
            administer(secured.port, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{RUNTIME_ROLE}'")
            store.ping()
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(secured.url("first-password"))
        finally:
            administer(secured.port, f"ALTER ROLE {RUNTIME_ROLE} PASSWORD 'first-password'")


WRONG = {
    "password": ({"password": "hunter2"}, "password authentication failed", "correct the user and password"),
    "no password": ({}, "no password supplied", "correct the user and password"),
    "role": ({"user": "je_stranger", "sslmode": "disable"}, 'role "je_stranger" does not exist', "correct the user"),
    "rejected role": ({"user": "je_nobody"}, "pg_hba.conf rejects connection", "let the server accept this role"),
    "database": ({"password": "first-password", "name": "nowhere"}, 'database "nowhere" does not exist', "correct the database"),
    "no TLS": ({"password": "first-password", "sslmode": "disable"}, "no encryption", "use TLS: add sslmode=verify-full"),
    "authority": ({"password": "first-password", "sslrootcert": "stranger"}, "SSL error", "correct sslmode, sslrootcert"),
    "no authority": ({"password": "hunter2", "sslrootcert": "/nowhere/ca.pem"}, "/nowhere/ca.pem", "correct sslmode, sslrootcert"),
    "option": ({"password": "hunter2", "color": "blue"}, 'invalid connection option "color"', "correct JUSTENOUGH_DATABASE_URL"),
    "mode": ({"password": "hunter2", "sslmode": "always"}, 'invalid sslmode value: "always"', "correct JUSTENOUGH_DATABASE_URL"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_wrong_connection_setting_gets_one_sentence_with_place_and_remedy(secured: SecuredServer, wrong: str) -> None:
    options, what, remedy = WRONG[wrong]
    if options.get("sslrootcert") == "stranger":
        options = {**options, "sslrootcert": str(secured.stranger)}
    began = time.monotonic()
    with closing(Store(secured.url(**options))) as store, pytest.raises(StoreUnavailable) as raised:
        store.migrate()
    assert time.monotonic() - began < PATIENCE_S
    message = str(raised.value)
    assert f"localhost:{secured.port}/" in message
    assert what in message
    assert remedy in message
    assert "\n" not in message
    assert "hunter2" not in message
    assert "first-password" not in message


def test_a_certificate_of_another_host_is_refused(secured: SecuredServer) -> None:
    url = secured.url("first-password").replace("@localhost:", "@elsewhere.example:")
    with closing(Store(url)) as store, pytest.raises(StoreUnavailable, match=r"elsewhere\.example.*correct sslmode"):
        store.migrate()


def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        url = f"postgresql://someone@127.0.0.1:{silent.getsockname()[1]}/x"
        with closing(Store(url)) as store, pytest.raises(StoreUnavailable, match=r"127.0.0.1:\d+/x as someone: .*timeout expired; check"):
            store.migrate()
        assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize("text, why", [(None, "No such file"), ("", "one line"), ("a\nb\n", "one line"), (b"\xff\xfe", "not text")])
def test_a_password_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | bytes | None, why: str) -> None:
    file = tmp_path / "password"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with (
        closing(Store("postgresql://someone@127.0.0.1:1/x", logins=PasswordFile(file))) as store,
        pytest.raises(StoreUnavailable) as raised,
    ):
        store.ping()
    assert why in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_password_from_two_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableUrl, match="two places") as raised:
        Store("postgresql://someone:hunter2@127.0.0.1/x", logins=PasswordFile(tmp_path / "password"))
    assert "hunter2" not in str(raised.value)
    with pytest.raises(UnusableUrl, match="SQLite"):
        Store(f"sqlite:///{tmp_path}/x.db", logins=PasswordFile(tmp_path / "password"))


# Rights. The other tests of the store run as the runtime role, too: what it needs is enough.


@pytest.fixture
def owner_url(postgres_port: int) -> Iterator[str]:
    """An empty database whose owner is no superuser."""
    with database(postgres_port) as url:
        name = url.rpartition("/")[2]
        administer(postgres_port, f"CREATE ROLE owner_{name} LOGIN")
        administer(postgres_port, f"ALTER DATABASE {name} OWNER TO owner_{name}")
        yield as_role(url, f"owner_{name}")
    administer(postgres_port, f"DROP ROLE owner_{name}")


def test_an_owner_who_is_not_a_superuser_migrates_and_grants(owner_url: str) -> None:
    runtime = owner_url.replace(owner_url.split("@", maxsplit=1)[0], f"postgresql://{RUNTIME_ROLE}")
    with closing(Store(owner_url)) as owner, closing(Store(runtime)) as store:
        with pytest.raises(StoreRightsMissing, match=rf"the store is empty, and the role {RUNTIME_ROLE} .*justenough store migrate"):
            store.migrate()
        assert owner.migrate().found is None
        with pytest.raises(StoreRightsMissing, match=rf"{RUNTIME_ROLE} (lacks|may not).*justenough store migrate --grant"):
            store.migrate()
        owner.migrate(grant=RUNTIME_ROLE)
        store.migrate()
        with pytest.raises(
            StoreRightsMissing, match=rf"the role {RUNTIME_ROLE} may not grant rights in the store; .* as the owner of its tables"
        ):
            store.migrate(grant="pg_monitor")
        store.ledger.append([submission()])
        found = store.inspect().postgres
        owners = owner.inspect().postgres
    assert found is not None
    assert owners is not None
    assert (found.missing_rights, found.may_change_ledger, owners.may_change_ledger) == ((), False, True)


def test_a_runtime_role_does_not_migrate_what_a_newer_version_needs(owner_url: str) -> None:
    runtime = owner_url.replace(owner_url.split("@", maxsplit=1)[0], f"postgresql://{RUNTIME_ROLE}")
    with closing(Store(owner_url)) as owner, closing(Store(runtime)) as store:
        newest = owner.migrate(grant=RUNTIME_ROLE).newest
        with psycopg.connect(owner_url) as connection:
            connection.execute("DROP TABLE places")
            connection.execute("UPDATE alembic_version SET version_num = '0025'")
        with pytest.raises(StoreRightsMissing, match=f"at revision 0025, this version needs {newest}.*justenough store migrate"):
            store.migrate()


@pytest.mark.parametrize("right", ["UPDATE ON jobs", "INSERT ON ledger", "DELETE ON bundles", "SELECT ON alembic_version"])
def test_each_right_that_is_missing_is_named_at_the_start(postgres_port: int, ready_database: str, right: str) -> None:
    verb, _, table = right.split()
    with database(postgres_port, like=ready_database) as url:
        with psycopg.connect(url) as admin:
            admin.execute(f"REVOKE {right} FROM {RUNTIME_ROLE}".encode())
        with closing(Store(as_role(url, RUNTIME_ROLE))) as store, pytest.raises(StoreRightsMissing, match=table) as raised:
            store.migrate()
    assert verb.lower() in str(raised.value) or verb == "SELECT"


def test_a_right_that_is_taken_away_later_makes_the_store_unavailable(postgres_port: int, ready_database: str) -> None:
    with database(postgres_port, like=ready_database) as url, closing(Store(as_role(url, RUNTIME_ROLE))) as store:
        store.migrate()
        with psycopg.connect(url) as admin:
            admin.execute(f"REVOKE INSERT ON ledger FROM {RUNTIME_ROLE}".encode())
        with pytest.raises(StoreUnavailable, match="permission denied for table ledger; `justenough store check`"):
            store.ledger.append([submission()])
        assert store.jobs.get(JOB) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET data = '{}'",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "ALTER TABLE ledger DISABLE TRIGGER ALL",
        "DROP TABLE ledger",
        "CREATE TABLE mine (id int)",
        "DELETE FROM jobs",
        "UPDATE orders SET spec = '{}'",
    ],
)
def test_the_runtime_role_cannot_change_the_ledger_the_schema_or_signed_orders(
    postgres_port: int, ready_database: str, statement: str
) -> None:
    with database(postgres_port, like=ready_database) as url:
        engine = open_database(as_role(url, RUNTIME_ROLE)).engine
        with pytest.raises(DBAPIError, match=r"permission denied|must be owner"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


def test_granting_removes_every_right_that_is_not_needed(postgres_port: int, ready_database: str) -> None:
    with database(postgres_port, like=ready_database) as url:
        with psycopg.connect(url) as admin:
            admin.execute(f"GRANT ALL ON ledger, jobs TO {RUNTIME_ROLE}".encode())
        with closing(Store(url)) as owner:
            owner.migrate(grant=RUNTIME_ROLE)
        with psycopg.connect(url) as admin:
            query = "SELECT table_name, string_agg(privilege_type, ', ') FROM information_schema.role_table_grants WHERE grantee = %s GROUP BY 1"
            granted = {table: set(rights.split(", ")) for table, rights in admin.execute(query, (RUNTIME_ROLE,))}
    assert granted == {table: set(rights.split(", ")) for table, rights in RIGHTS.items()}


@pytest.mark.parametrize("role, why", [("nobody at all", "there is no role nobody at all"), ("postgres", "owns the store's tables")])
def test_a_role_that_cannot_be_given_rights_is_refused(postgres_port: int, ready_database: str, role: str, why: str) -> None:
    with database(postgres_port, like=ready_database) as url, closing(Store(url)) as owner, pytest.raises(StoreRightsMissing, match=why):
        owner.migrate(grant=role)


def test_a_standby_is_found_and_refused_until_the_address_leads_to_the_primary(postgres_port: int, ready_database: str) -> None:
    with database(postgres_port, like=ready_database) as url:
        name = url.rpartition("/")[2]
        administer(postgres_port, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with closing(Store(as_role(url, RUNTIME_ROLE))) as store:
            report = store.inspect().postgres
            with pytest.raises(StoreUnavailable, match=r"refuses writes.*set JUSTENOUGH_DATABASE_URL to the primary server"):
                store.ledger.append([submission()])
            # After a failover by DNS, open connections still lead to the standby, and new ones to the primary.
            administer(postgres_port, f"ALTER DATABASE {name} RESET default_transaction_read_only")
            assert store.ledger.append([submission()])
    assert report is not None
    assert report.is_read_only


@pytest.mark.parametrize("configured, used", [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_what_was_recorded_survives_a_crash_of_the_server_whatever_its_setting(
    postgres_port: int, ready_database: str, configured: str, used: str
) -> None:
    with database(postgres_port, like=ready_database) as url:
        administer(postgres_port, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = {configured}")
        opened = open_database(as_role(url, RUNTIME_ROLE))
        with write_transaction(opened.engine) as writer:
            assert writer.exec_driver_sql("SHOW synchronous_commit").scalar_one() == used
        opened.engine.dispose()


@pytest.mark.parametrize("query, expected", [("", [10_000, 5, 1, 5]), ("?tcp_user_timeout=70000&keepalives_idle=30", [70_000, 30, 1, 5])])
def test_both_sides_notice_long_before_a_claim_ends_that_the_others_machine_has_vanished(
    postgres_port: int, ready_database: str, query: str, expected: list[int]
) -> None:
    """Only the kernels can notice it, so check the kernels' limits: this side's socket options, and the settings that the server returns."""
    asked = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    settings = ("tcp_user_timeout", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
    opened = open_database(f"postgresql://postgres@127.0.0.1:{postgres_port}/{ready_database}{query}")
    assert opened.connector is not None
    with closing(opened.connector.connect_listener(opened.engine.dialect)[0]) as listener, read_transaction(opened.engine) as reader:
        driver: Any = reader.connection.driver_connection
        for connection in (driver, listener):
            with socket.socket(fileno=os.dup(connection.fileno())) as link:
                assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert [link.getsockopt(socket.IPPROTO_TCP, option) for option in asked] == expected
            assert [int(connection.execute(f"SHOW {name}").fetchall()[0][0]) for name in settings] == expected
    opened.engine.dispose()


def test_no_single_lost_probe_ends_a_connection() -> None:
    """With a tcp_user_timeout, Linux ignores keepalives_count: it gives up at the first probe after that time."""
    idle, interval, _, user_timeout = LINK_LIMITS.values()
    assert (user_timeout / 1000 - idle) / interval >= 5


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_store_every_text_is_refused(postgres_port: int, encoding: str) -> None:
    name = f"narrow_{encoding}".lower()
    administer(postgres_port, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    with closing(Store(f"postgresql://postgres@127.0.0.1:{postgres_port}/{name}")) as store:
        with pytest.raises(StoreUnavailable, match=rf"{name} as postgres: its server_encoding is {encoding}.*ENCODING 'UTF8'"):
            store.migrate()
        with pytest.raises(StoreUnavailable, match="server_encoding"):
            store.inspect()


def test_a_role_whose_times_cannot_be_read_is_refused(postgres_port: int, ready_database: str) -> None:
    with database(postgres_port, like=ready_database) as url:
        administer(postgres_port, f"ALTER DATABASE {url.rpartition('/')[2]} SET datestyle = 'German'")
        with (
            closing(Store(url)) as store,
            pytest.raises(StoreUnavailable, match="DateStyle is German, DMY, so times cannot be read; run ALTER ROLE"),
        ):
            store.ping()


def test_the_list_of_rights_names_every_table(postgres_port: int, ready_database: str) -> None:
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{postgres_port}/{ready_database}") as admin:
        found = {name for (name,) in admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert found == set(RIGHTS)
