"""`justenough store migrate` and `store check`, and the errors of workers and consoles that cannot use the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from console.cli.root_group import build_program
from justenough.adapters.store import Store, StoreUnfit
from tests.adapters.store.conftest import RUNTIME_ROLE, as_role, database, postgres_folder
from tests.adapters.store.event_samples import NOW
from tests.adapters.store.pgbouncer import running_pgbouncer

pytestmark = pytest.mark.servers
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def url(postgres_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    with database(postgres_port) as made:
        monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", made)
        yield made


def run(*command: str) -> Result:
    return CliRunner().invoke(build_program(), command)


def findings() -> dict[str, tuple[str, str]]:
    done = run("store", "check", "--output", "json")
    found = {one["what"]: (one["level"], one["found"]) for one in json.loads(done.stdout)["findings"]}
    assert done.exit_code == int(any(level == "missing" for level, _ in found.values()))
    return found


def test_a_store_is_migrated_granted_and_found_ready(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["schema"] == ("missing", "the database is empty")
    done = run("store", "migrate", "--grant", RUNTIME_ROLE)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("Migrated the store from nothing to revision ")
    assert f"The role {RUNTIME_ROLE} has the rights" in done.stdout
    assert findings()["rights"][0] == "warning"  # The tables' owner could change the ledger.
    assert run("store", "migrate").stdout.startswith("The store is at revision ")
    monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", as_role(url, RUNTIME_ROLE))
    found = findings()
    assert {what: level for what, (level, _) in found.items()} == {
        "store": "ok",
        "server": "ok",
        "TLS": "ok",
        "schema": "ok",
        "rights": "ok",
        "notices": "ok",
    }
    assert found["server"][1].startswith("PostgreSQL 18")


def test_a_pooler_is_found_and_the_listener_is_told_where_to_listen(url: str, postgres_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run("store", "migrate", "--grant", RUNTIME_ROLE)
    direct = as_role(url, RUNTIME_ROLE)
    with running_pgbouncer(postgres_port) as port:
        monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", direct.replace(f":{postgres_port}/", f":{port}/"))
        found = findings()
        assert (found["pooler"][0], found["notices"][0]) == ("ok", "warning")
        assert "a pooler is in front of the server" in found["notices"][1]
        monkeypatch.setenv("JUSTENOUGH_DATABASE_LISTEN_URL", direct)
        assert findings()["notices"] == ("ok", "new entries are announced at once")


def test_missing_rights_are_listed_with_their_remedy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("store", "migrate", "--grant", RUNTIME_ROLE)
    with psycopg.connect(url) as admin:
        admin.execute(f"REVOKE INSERT ON ledger FROM {RUNTIME_ROLE}".encode())
    monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", as_role(url, RUNTIME_ROLE))
    done = run("store", "check")
    assert done.exit_code == 1
    assert f"the role {RUNTIME_ROLE} lacks ledger.insert" in done.stdout
    assert "justenough store migrate --grant ROLE" in done.stdout


def restore(url: str, dump: Path, *options: str) -> str:
    """Restore a dump with pg_restore and return its errors."""
    done = subprocess.run([postgres_folder() / "pg_restore", *options, "-d", url, dump], capture_output=True, text=True, check=False)
    return done.stderr


@pytest.fixture
def dump(url: str, tmp_path: Path) -> Path:
    """A backup of a store that was in use."""
    run("store", "migrate")
    with closing(Store(url)) as store:
        store.probe_write(NOW)
    subprocess.run([postgres_folder() / "pg_dump", "-Fc", "-f", tmp_path / "dump", url], check=True)
    return tmp_path / "dump"


def test_a_restore_that_a_running_worker_spoiled_is_found(postgres_port: int, dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with database(postgres_port) as url:
        monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", url)
        assert restore(url, dump, "--section=pre-data") == ""
        with closing(Store(url)) as worker:
            worker.probe_write(NOW)
        assert restore(url, dump, "--section=data") == ""
        level, found = findings()["schema"]
        assert (level, found.startswith("the database lacks ledger_no_change, ledger_no_truncate, ix_")) == ("missing", True)
        assert "could not create unique index" in restore(url, dump, "--section=post-data")
        assert findings()["schema"] == (
            "missing",
            "the database lacks pk_probes: a restore failed or was interrupted, or somebody dropped them",
        )
    with database(postgres_port) as url:
        monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", url)
        assert restore(url, dump, "--single-transaction") == ""
        assert findings()["schema"][0] == "ok"


@pytest.mark.parametrize("command", ["check", "migrate"])
def test_a_store_of_which_only_tables_were_restored_is_not_taken_for_an_empty_one(
    postgres_port: int, dump: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    with database(postgres_port) as url:
        monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", url)
        assert restore(url, dump, "--section=pre-data") == ""
        done = run("store", command)
    assert done.exit_code == 1
    assert "the database has alembic_version, but no revision: a restore was interrupted" in done.stdout + done.stderr


def items_of(dump: Path) -> list[str]:
    """Return the lines of a dump's list of contents: what pg_restore makes, in its order."""
    done = subprocess.run([postgres_folder() / "pg_restore", "--list", dump], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line and not line.startswith(";")]


STOPS = {
    "FUNCTION public ledger_refuse": "the database has ledger_refuse, but no revision",
    "TABLE public acknowledgements": "the database has acknowledgements, but no revision",
    "TABLE DATA public alembic_version": "the database lacks ledger_no_change",
    "TRIGGER public ledger ledger_no_change": "the database lacks ledger_no_truncate",
}
"""The last item that a killed pg_restore has made, and what is said about it."""


@pytest.mark.parametrize("stop", STOPS)
def test_nobody_works_with_a_store_whose_restore_was_killed(
    postgres_port: int, dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    items, done = items_of(dump), tmp_path / "done"
    [last] = [number for number, item in enumerate(items) if stop in item]
    done.write_text("".join(f"{item}\n" for item in items[: last + 1]))
    with database(postgres_port) as url:
        monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", url)
        assert restore(url, dump, "-L", str(done)) == ""
        for command in (("check",), ("migrate",), ("migrate", "--grant", RUNTIME_ROLE)):
            ran = run("store", *command)
            told = ran.stdout + ran.stderr
            assert ran.exit_code == 1, command
            assert "into an empty database" in told
            assert STOPS[stop] in told
        # Workers and consoles call this when they start.
        with closing(Store(url)) as store, pytest.raises(StoreUnfit, match="restore the backup again, into an empty database"):
            store.migrate()


def test_a_store_without_an_index_that_only_makes_it_faster_can_be_used(url: str) -> None:
    run("store", "migrate")
    with psycopg.connect(url) as admin:
        admin.execute("DROP INDEX ix_approvals_at")
    with closing(Store(url)) as store:
        store.migrate()
    assert "the database lacks ix_approvals_at" in findings()["schema"][1]


@pytest.mark.parametrize("command", ["check", "migrate"])
def test_a_store_that_does_not_answer_exits_1_with_one_sentence(url: str, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("JUSTENOUGH_DATABASE_URL", url.replace("postgres@", "stranger:hunter2@"))
    done = run("store", command)
    assert done.exit_code == 1
    told = done.stdout + done.stderr
    assert 'role "stranger" does not exist; correct the user in JUSTENOUGH_DATABASE_URL' in told
    assert "hunter2" not in told
    assert "Traceback" not in told


WRONG = {
    "role": ({"JUSTENOUGH_DATABASE_URL": "postgresql://stranger@127.0.0.1:{port}/postgres"}, 'role "stranger" does not exist'),
    "rights": ({"JUSTENOUGH_DATABASE_URL": "postgresql://je_store@127.0.0.1:{port}/postgres"}, "run `justenough store migrate --grant"),
    "port": ({"JUSTENOUGH_DATABASE_URL": "postgresql://x@127.0.0.1:nope/x"}, "cannot be parsed"),
    "scheme": ({"JUSTENOUGH_DATABASE_URL": "mysql://x@127.0.0.1/x"}, "the store needs an SQLite file or PostgreSQL"),
    "file": ({"JUSTENOUGH_DATABASE_URL": "sqlite:////proc/nowhere/x.db"}, "/proc/nowhere/x.db cannot be created"),
    "no database": ({"JUSTENOUGH_DATABASE_URL": "sqlite:///{root}/README.md"}, "file is not a database"),
    "two passwords": (
        {"JUSTENOUGH_DATABASE_PASSWORD_FILE": "/x", "JUSTENOUGH_DATABASE_CREDENTIALS": "database/creds/x"},
        "cannot come from two places",
    ),
    "password file": (
        {"JUSTENOUGH_DATABASE_URL": "postgresql://x@127.0.0.1:{port}/x", "JUSTENOUGH_DATABASE_PASSWORD_FILE": "/nowhere/password"},
        "/nowhere/password cannot be read: No such file or directory",
    ),
    "setting": (
        {"JUSTENOUGH_CONSOLE_PORT": "many", "JUSTENOUGH_DATABASE_CREDENTIALS": "kv/x"},
        "setting console_port: must be a whole number",
    ),
    "list": ({"JUSTENOUGH_PEOPLE_MOUNTS": "people"}, 'error parsing value for field "people_mounts"'),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_console_that_cannot_use_its_store_or_settings_says_why_and_exits_1(wrong: str, postgres_port: int, tmp_path: Path) -> None:
    settings, why = WRONG[wrong]
    settings = {name: value.format(port=postgres_port, root=ROOT) for name, value in settings.items()}
    environment = {**os.environ, "JUSTENOUGH_HOME": str(tmp_path / "home"), "JUSTENOUGH_CONFIG": str(ROOT / "examples/shop"), **settings}
    command = [sys.executable, "-P", "-m", "console"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("console cannot start: ")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_settings_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "justenough.toml").write_text("console_port = = 1")
    command = [sys.executable, "-P", "-m", "worker"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("worker cannot start: the settings are invalid: settings file justenough.toml: cannot be read: ")
    assert len(done.stderr.splitlines()) == 1
