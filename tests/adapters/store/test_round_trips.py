"""How often a command waits for an answer of PostgreSQL, which is what the distance to it costs. No command fails on a dead connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from justenough.adapters.store import Store, StoreUnavailable
from justenough.adapters.store.engine import PREPARE_AFTER_USES, read_transaction
from justenough.domain.core.ids import new_job_id
from tests.adapters.store.conftest import RUNTIME_ROLE, administer, as_role, database
from tests.adapters.store.event_samples import submission

pytestmark = pytest.mark.servers

WAITS = re.compile(r"^\S+ \S+\tF\t\d+\t(?:Query|Sync)\b", re.MULTILINE)
"""A client's message in libpq's trace, after which it waits for the answer."""
JOB = submission().job
COMMANDS: dict[str, Callable[[Store], Any]] = {
    "one statement": lambda store: store.claims.get(JOB),
    "a snapshot": lambda store: store.ledger.news(0, types=()),
    "an append": lambda store: store.ledger.append([submission(new_job_id("dev", now=datetime.now(UTC)))]),
}


@pytest.fixture
def url(postgres_port: int, ready_database: str) -> Iterator[str]:
    with database(postgres_port, like=ready_database) as address:
        yield as_role(address, RUNTIME_ROLE)


@contextmanager
def count_round_trips(store: Store, file: Path) -> Iterator[Callable[[], int]]:
    """Yield a function that returns how often the store's only connection has waited for an answer since this block began."""
    with store._engine.connect() as opened:
        driver: Any = opened.connection.driver_connection
    with file.open("w") as trace:
        driver.pgconn.trace(trace.fileno())
        yield lambda: len(WAITS.findall(file.read_text()))
        driver.pgconn.untrace()


@pytest.mark.parametrize("name, most", {"one statement": 1, "a snapshot": 4, "an append": 8}.items())
def test_a_command_waits_for_no_more_answers_than_it_needs(url: str, tmp_path: Path, name: str, most: int) -> None:
    with closing(Store(url)) as store:
        COMMANDS[name](store)
        with count_round_trips(store, tmp_path / "trace") as count:
            COMMANDS[name](store)
            assert 1 <= count() <= most


def test_a_read_leaves_the_writers_statements_prepared(url: str) -> None:
    with closing(Store(url)) as store:
        for _ in range(PREPARE_AFTER_USES + 2):
            COMMANDS["an append"](store)
        COMMANDS["a snapshot"](store)
        COMMANDS["one statement"](store)
        with read_transaction(store._engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() > 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_connection_that_the_server_has_ended_costs_no_command(url: str, postgres_port: int, name: str) -> None:
    with closing(Store(url)) as store:
        opened: list[Any] = []
        event.listen(store._engine, "connect", lambda connection, _: opened.append(connection))
        store.ping()
        administer(postgres_port, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{RUNTIME_ROLE}'")
        COMMANDS[name](store)
        assert len(opened) == 2


def test_a_command_is_not_repeated_for_ever(url: str, postgres_port: int) -> None:
    with closing(Store(url)) as store:
        store.ping()

        def end_own_connection(*_: Any) -> None:
            administer(postgres_port, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{RUNTIME_ROLE}'")

        event.listen(store._engine, "before_cursor_execute", end_own_connection)
        with pytest.raises(StoreUnavailable, match="the store does not answer"):
            store.sweeps.end(now=datetime.now(UTC))
