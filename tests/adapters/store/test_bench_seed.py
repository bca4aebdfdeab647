"""The store for measurements: its bulk inserts have the same result as recording each event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import seed as seeding
from justenough.adapters.store import Store
from justenough.domain.ledger.events import Event, EventType
from tests.adapters.store.conftest import BOTH, open_empty
from tests.adapters.store.event_samples import submission

UNTIL = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module", params=BOTH)
def seeded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store of few jobs, of every kind."""
    with open_empty(request, tmp_path_factory.mktemp("seeded")) as url, pytest.MonkeyPatch.context() as patched:
        patched.setattr(seeding, "PATTERNS", 120)
        patched.setattr(seeding, "OPEN_PATTERNS", 60)
        made = seeding.seed(url, jobs=150, entries=1_000, open_jobs=60, until=UNTIL, tell=lambda _: None)
        assert made[0] == 150
        yield url


def test_a_seeded_store_equals_one_that_recorded_the_same_ledger(seeded: str, tmp_path: Path) -> None:
    with closing(Store(seeded)) as large, closing(Store(f"sqlite:///{tmp_path}/recorded.db")) as store:
        store.migrate()
        entries = large.ledger.entries(limit=1000).items
        while (page := large.ledger.entries(after=entries[-1].position, limit=1000)).items:
            entries += page.items
        for begin in range(0, len(entries), 200):
            some = entries[begin : begin + 200]
            store.ledger.append(Event(id=one.id, job=one.job, type=EventType(one.type), at=one.at, data=one.data) for one in some)
        assert large.ledger.verify().sound
        assert large.ledger.verify().entries == len(entries)
        assert large.metrics.counts() == store.metrics.counts()
        assert large.dashboard.current_counts(UNTIL) == store.dashboard.current_counts(UNTIL)
        assert large.jobs.list(limit=1000) == store.jobs.list(limit=1000)
        for job in store.jobs.list(limit=1000).items:
            assert large.jobs.get(job.id) == store.jobs.get(job.id)
            assert large.jobs.order(job.id) == store.jobs.order(job.id)
        assert large.reviews.list() == store.reviews.list()
        assert large.ledger.entries_newest_first(limit=1000).items[:50] == store.ledger.entries_newest_first(limit=50).items


def test_a_seeded_store_still_refuses_a_change_of_its_ledger_and_takes_new_events(seeded: str) -> None:
    with closing(Store(seeded)) as store:
        before = store.ledger.head().position
        store.ledger.append([submission()])
        assert store.ledger.head().position == before + 1
        assert store.ledger.verify().sound
        with store._engine.connect() as connection, pytest.raises(Exception, match="insert-only"):
            connection.exec_driver_sql("DELETE FROM ledger")


def test_a_store_that_holds_something_is_not_seeded(store: Store, url: str) -> None:
    store.ledger.append([submission()])
    with pytest.raises(SystemExit, match="not empty"):
        seeding.seed(url, jobs=10, entries=10, open_jobs=1, until=UNTIL, tell=lambda _: None)
