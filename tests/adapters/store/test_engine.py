"""Connecting to the store: addresses, files, a database that does not answer, and work that shares a commit."""

from __future__ import annotations

import socket
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text

from justenough.adapters.store import Store, StoreNotMigrated, StoreUnavailable
from justenough.adapters.store.engine import POOL_SIZE, UnusableUrl, open_database, parse_url, read_transaction
from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.postgres_connection import place_of
from justenough.domain.core.errors import GiveUp, RetryLater
from tests.adapters.store.event_samples import submission


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_an_address_that_names_no_usable_database_is_refused_at_once(url: str) -> None:
    with pytest.raises(UnusableUrl) as refused:
        Store(url)
    assert isinstance(refused.value, GiveUp)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgresql_address_is_taken_however_it_is_spelled(scheme: str) -> None:
    engine = open_database(f"{scheme}://someone@localhost/x").engine
    assert engine.url.drivername == "postgresql+psycopg"


def test_several_servers_are_named_one_after_the_other() -> None:
    url = parse_url("postgresql://someone:hunter2@/x?host=db-1:5432&host=db-2:5432&target_session_attrs=read-write")
    assert place_of(url) == "db-1:5432,db-2:5432/x as someone"
    assert place_of(parse_url("postgresql:///x?host=/run/postgresql")) == "/run/postgresql/x"


def test_an_unusable_address_is_refused_without_its_password() -> None:
    with pytest.raises(UnusableUrl) as refused:
        Store("mysql://user:hunter2@localhost/x")
    assert "hunter2" not in str(refused.value)


def test_an_sqlite_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    with closing(Store(f"sqlite:///{home / 'store.db'}")) as store:
        store.migrate()
        store.ledger.append([submission()])
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {
            "store.db": 0o600,
            "store.db-wal": 0o600,
            "store.db-shm": 0o600,
        }
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_sqlite_uses_wal_and_flushes_each_commit_to_disk(tmp_path: Path) -> None:
    """WAL, and flushed to disk at each commit."""
    engine = open_database(f"sqlite:///{tmp_path / 'store.db'}").engine
    with read_transaction(engine) as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
    engine.dispose()


def test_the_caches_of_all_sqlite_connections_together_stay_small(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'store.db'}").engine
    with read_transaction(engine) as connection:
        # Negative, because it is in KB.
        assert -64_000 <= POOL_SIZE * connection.execute(text("PRAGMA cache_size")).scalar_one() < 0
    engine.dispose()


def test_a_ready_store_answers_a_ping_and_a_query(store: Store) -> None:
    store.ping()
    assert store.metrics.counts().jobs == {}


def test_a_connection_in_use_when_the_store_is_closed_is_closed_when_it_is_returned(url: str) -> None:
    store = Store(url)
    with read_transaction(store._engine) as used:
        connection: Any = used.connection.driver_connection
        store.close()
        assert used.execute(text("SELECT 1")).scalar_one() == 1
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        connection.execute("SELECT 1")


def test_an_unreachable_database_server_is_unavailable_and_the_error_contains_no_secret() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://someone:hunter2@127.0.0.1:{unused.getsockname()[1]}/x"
        with closing(Store(url)) as store, pytest.raises(StoreUnavailable) as raised:
            store.ping()
    assert isinstance(raised.value, RetryLater)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is not None


def test_a_database_that_is_not_migrated_says_so(empty_url: str) -> None:
    with closing(Store(empty_url)) as store, pytest.raises(StoreNotMigrated, match=r"not migrated to this version: .*jobs") as raised:
        store.jobs.list()
    assert "SELECT" not in str(raised.value)


def test_a_damaged_sqlite_file_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with closing(Store(f"sqlite:///{file}")) as store:
        store.migrate()
    # The header stays, so that it is still a database.
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096))
    with closing(Store(f"sqlite:///{file}")) as store, pytest.raises(StoreUnavailable, match=r"the store is damaged: .*malformed"):
        store.jobs.list()


@pytest.mark.servers
def test_a_read_only_sqlite_file_is_to_be_made_writable(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE t (x)")
    engine = create_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    with (
        pytest.raises(StoreUnavailable, match="attempt to write a readonly database; make the SQLite file and its folder writable"),
        read_transaction(engine) as connection,
    ):
        connection.execute(text("INSERT INTO t VALUES (1)"))
    engine.dispose()


@pytest.mark.parametrize("code", ["data_corrupted", "index_corrupted"])
def test_a_damaged_postgresql_is_unavailable(postgres_port: int, code: str) -> None:
    engine = open_database(f"postgresql://postgres@127.0.0.1:{postgres_port}/postgres").engine
    raising = text(f"DO $$ BEGIN RAISE 'invalid page in block 7' USING ERRCODE = '{code}'; END $$")
    with pytest.raises(StoreUnavailable, match="the store is damaged: invalid page in block 7"), read_transaction(engine) as connection:
        connection.execute(raising)
    engine.dispose()


def test_a_writer_waits_for_another_writers_transaction(tmp_path: Path) -> None:
    """Another process holds the file's write lock meanwhile."""
    file = tmp_path / "store.db"
    with closing(Store(f"sqlite:///{file}")) as store, closing(sqlite3.connect(file, isolation_level=None)) as other:
        store.migrate()
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=store.ledger.append, args=([submission("j-dev-waits")],))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert store.jobs.get("j-dev-waits") is None  # Readers do not wait.
        other.execute("COMMIT")
        waiting.join()
        assert store.jobs.get("j-dev-waits") is not None


def test_writes_that_wait_share_the_next_transaction(url: str) -> None:
    engine = open_database(url).engine
    commits = GroupCommitter(engine)
    first_runs, go_on = threading.Event(), threading.Event()
    transactions: list[object] = []

    def hold(_: Connection) -> None:
        first_runs.set()
        go_on.wait()

    def note(connection: Connection) -> None:
        transactions.append(connection.get_transaction())

    holder = threading.Thread(target=commits.run, args=(hold,))
    holder.start()
    first_runs.wait()
    waiting = [threading.Thread(target=commits.run, args=(note,)) for _ in range(5)]
    for thread in waiting:
        thread.start()
    while len(commits._waiting) < 5:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in (holder, *waiting):
        thread.join()
    engine.dispose()
    assert len(transactions) == 5
    assert len(set(map(id, transactions))) == 1


def test_an_interrupt_in_one_piece_of_work_leaves_no_other_thread_waiting(url: str) -> None:
    engine = open_database(url).engine
    commits = GroupCommitter(engine)
    first_runs, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def hold(_: Connection) -> None:
        first_runs.set()
        go_on.wait()

    def fail(error: BaseException) -> Callable[[Connection], None]:
        def work(_: Connection) -> None:
            raise error

        return work

    def run(name: str, work: Callable[[Connection], None]) -> None:
        with suppress(ValueError, KeyboardInterrupt):
            commits.run(work)
        done.append(name)

    # The piece that fails makes the committing thread try each alone; the one that is interrupted comes before the last.
    pieces = {"holds": hold, "fails": fail(ValueError()), "is interrupted": fail(KeyboardInterrupt()), "is last": lambda _: None}
    threads = []
    for number, (name, work) in enumerate(pieces.items()):
        threads.append(threading.Thread(target=run, args=(name, work), daemon=True))
        threads[-1].start()
        first_runs.wait()
        while len(commits._waiting) < number:
            threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(20)
    engine.dispose()
    assert sorted(done) == sorted(pieces)
