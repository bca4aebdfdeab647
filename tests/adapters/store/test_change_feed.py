"""How a store notifies listeners that something may have been recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from justenough.adapters.store import ChangeFeed, Store
from tests.adapters.store.event_samples import job_id, submission

LONG = 30.0
"""Seconds that nobody here waits for."""


@pytest.fixture
def changes(store: Store) -> Iterator[ChangeFeed]:
    """A sight of the store that has had its first look."""
    with closing(store.open_change_feed()) as made:
        made.wait(LONG)
        yield made


def wait_time(changes: ChangeFeed, seconds: float) -> float:
    began = time.monotonic()
    changes.wait(seconds)
    return time.monotonic() - began


def test_a_recorded_event_ends_the_wait(store: Store, changes: ChangeFeed) -> None:
    for number in range(5):
        writer = threading.Timer(0.2, store.ledger.append, [[submission(job_id(number))]])
        writer.start()
        assert wait_time(changes, LONG) < LONG / 2
        writer.join()


def test_an_event_recorded_before_the_wait_ends_it_at_once(store: Store, changes: ChangeFeed) -> None:
    store.ledger.append([submission()])
    assert wait_time(changes, LONG) < LONG / 2


def test_without_a_new_event_a_wait_lasts_its_full_time(store: Store, changes: ChangeFeed) -> None:
    store.ledger.head()
    assert wait_time(changes, 0.5) >= 0.5


def test_a_reader_that_knows_of_more_entries_does_not_wait(changes: ChangeFeed) -> None:
    changes.skip_next_wait()
    assert wait_time(changes, LONG) < LONG / 2


def test_closing_the_feed_from_another_thread_ends_its_waits(changes: ChangeFeed, url: str) -> None:
    # With PostgreSQL, a wait that has begun goes on to its end.
    threading.Timer(0.2, changes.close).start()
    assert wait_time(changes, 2.0 if url.startswith("postgresql") else LONG) < LONG / 2
    assert wait_time(changes, LONG) < LONG / 2


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_notifies_only_after_commits_and_once_for_many(store: Store, url: str) -> None:
    store.migrate()
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute("LISTEN justenough_ledger")
        store.ledger.append([submission(job_id(number)) for number in range(5)])
        store.ledger.append([submission(job_id(0))])
        assert [notice.payload for notice in listener.notifies(timeout=2, stop_after=1)] == [""]
        assert list(listener.notifies(timeout=0.2)) == []


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_ledger_is_polled_often_if_no_notice_can_arrive(store: Store, url: str) -> None:
    """Notifications do not arrive, as behind a pooler or if the server has no connection left."""
    with closing(store.open_change_feed()) as changes, psycopg.connect(url, autocommit=True) as admin:
        changes.wait(LONG)
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'justenough-listener'")
        admin.execute("SELECT pg_sleep(0.1)")
        assert wait_time(changes, LONG) < LONG / 2
        assert wait_time(changes, LONG) < LONG / 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_ledger_is_polled_often_while_the_file_of_sqlite_cannot_be_opened(store: Store, tmp_path: Path) -> None:
    with closing(store.open_change_feed()) as changes:
        file = (tmp_path / "store.db").rename(tmp_path / "away.db")
        assert wait_time(changes, LONG) < LONG / 2
        assert wait_time(changes, LONG) < LONG / 2
        file.rename(tmp_path / "store.db")
        changes.wait(LONG)
        assert wait_time(changes, 0.5) >= 0.5
