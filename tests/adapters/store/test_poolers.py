"""The store behind a pooler that gives each transaction another session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import text

from justenough.adapters.store import Store
from justenough.adapters.store.engine import open_database, read_transaction, write_transaction
from tests.adapters.store.conftest import RUNTIME_ROLE, as_role, database
from tests.adapters.store.event_samples import job_id, submission
from tests.adapters.store.pgbouncer import running_pgbouncer
from tests.support.wait import until

pytestmark = pytest.mark.servers
LONG = 30.0
"""Seconds that nobody here waits for."""
ROUNDS, THREADS = 12, 6


@pytest.fixture(scope="module")
def pooler_port(postgres_port: int) -> Iterator[int]:
    with running_pgbouncer(postgres_port) as port:
        yield port


@pytest.fixture
def direct_url(postgres_port: int, ready_database: str) -> Iterator[str]:
    with database(postgres_port, like=ready_database) as url:
        yield as_role(url, RUNTIME_ROLE)


@pytest.fixture
def pooled_url(direct_url: str, postgres_port: int, pooler_port: int) -> str:
    return direct_url.replace(f":{postgres_port}/", f":{pooler_port}/")


def test_a_transaction_pooler_refuses_startup_options_and_forgets_prepared_statements(pooled_url: str) -> None:
    """The control: the features that the store must not rely on fail here."""
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(pooled_url, options="-c lock_timeout=30s")
    with psycopg.connect(pooled_url, autocommit=True) as one, psycopg.connect(pooled_url, autocommit=True) as other:
        for connection in (one, other):
            connection.execute("BEGIN")
        for connection in (one, other):
            connection.execute("COMMIT")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            one.execute("SELECT %s::int", (1,), prepare=True)


def test_many_threads_record_and_read_through_the_pooler(pooled_url: str) -> None:
    failures: list[BaseException] = []

    def use(store: Store, thread: int) -> None:
        try:
            for number in range(ROUNDS):
                job = job_id(thread * ROUNDS + number)
                store.ledger.append([submission(job)])
                assert store.jobs.get(job) is not None
                store.jobs.list()
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            failures.append(error)

    with closing(Store(pooled_url)) as store, closing(Store(pooled_url)) as other:
        store.migrate()
        threads = [threading.Thread(target=use, args=((store, other)[number % 2], number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.ledger.head().entries == THREADS * ROUNDS
        assert store.ledger.verify().sound


@pytest.mark.parametrize("pooled", [False, True])
def test_a_writers_limits_end_with_its_transaction(direct_url: str, pooled_url: str, pooled: bool) -> None:
    engine = open_database(pooled_url if pooled else direct_url).engine
    limits = text("SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')")
    with write_transaction(engine) as connection:
        assert tuple(connection.execute(limits).one()) == ("30s", "30s")
    with read_transaction(engine) as connection:
        assert tuple(connection.execute(limits).one()) == (("0", "0") if pooled else ("30s", "30s"))
        held = connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")).scalar_one()
    engine.dispose()
    assert held == 0


def test_statements_are_prepared_only_without_a_pooler(direct_url: str, pooled_url: str) -> None:
    found, prepared = {}, 0
    for url in (direct_url, pooled_url):
        engine = open_database(url).engine
        for _ in range(8):
            with write_transaction(engine) as connection:
                connection.execute(text("SELECT count(*) FROM jobs WHERE id = :id"), {"id": "x"})
                prepared = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
        found[url] = prepared > 0
        engine.dispose()
    assert found == {direct_url: True, pooled_url: False}


def test_a_listener_behind_a_pooler_keeps_no_connection_open(pooled_url: str, pooler_port: int) -> None:
    with closing(Store(pooled_url)) as store, closing(store.open_change_feed()) as changes:
        changes.wait(LONG)  # Finds the pooler.
        store.ledger.append([submission()])
        changes.wait(LONG)
        changes.wait(LONG)
        with psycopg.connect(f"host=127.0.0.1 port={pooler_port} user=postgres dbname=pgbouncer", autocommit=True) as admin:
            clients = admin.execute("SHOW CLIENTS").fetchall()
    assert not [client for client in clients if "justenough-listener" in client]


def test_notices_arrive_at_the_url_for_listening(direct_url: str, pooled_url: str) -> None:
    with closing(Store(pooled_url, listen_url=direct_url)) as store, closing(store.open_change_feed()) as changes:
        changes.wait(LONG)  # Begins to listen.
        store.ledger.append([submission()])
        changes.wait(LONG)
        late = threading.Timer(0.3, store.ledger.append, [[submission(job_id(2))]])
        late.start()
        changes.wait(LONG)
        late.join()
        found = store.inspect()
        with psycopg.connect(direct_url, autocommit=True) as admin:
            listeners = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN' AND datname = current_database()"
            # The server ends a session a moment after its client has closed the connection.
            until(lambda: admin.execute(listeners).fetchone() == (1,), "one session listens")
    assert found.postgres is not None
    assert (found.postgres.is_direct, found.postgres.notices) == (False, None)


def test_a_listen_url_of_another_database_is_detected(direct_url: str, pooled_url: str, postgres_port: int) -> None:
    elsewhere = f"postgresql://postgres@127.0.0.1:{postgres_port}/postgres"
    with closing(Store(pooled_url, listen_url=elsewhere)) as store:
        found = store.inspect()
    assert found.postgres is not None
    assert found.postgres.notices == "no notice arrived there: it may be another database"
