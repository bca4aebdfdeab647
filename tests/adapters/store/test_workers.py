"""Workers report what they have in force. Workers that no longer report are not shown, and are finally forgotten."""

from __future__ import annotations

from datetime import datetime, timedelta

from justenough.adapters.store import Store
from justenough.adapters.store.worker_reports import KEPT_FOR
from justenough.domain.readmodel.views import ConfigState, WorkerView
from tests.adapters.store.event_samples import NOW, later

EVER = NOW - timedelta(days=365)


def worker(name: str, at: datetime, *, digest: str | None = "sha256:1", alarm: str | None = None) -> WorkerView:
    return WorkerView(name=name, version="1.2.3", config_digest=digest, config_alarm=alarm, last_seen=at)


def test_a_worker_is_shown_with_its_last_report_until_it_is_silent(store: Store) -> None:
    store.workers.report(worker("b", NOW))
    store.workers.report(worker("a", NOW, digest=None, alarm="broken"))
    assert store.workers.seen_since(NOW) == (worker("a", NOW, digest=None, alarm="broken"), worker("b", NOW))
    store.workers.report(worker("a", later(10)))
    assert store.workers.seen_since(later(5)) == (worker("a", later(10)),)
    store.workers.forget("a")
    assert store.workers.seen_since(EVER) == (worker("b", NOW),)


def test_a_worker_that_never_returns_is_removed_when_another_one_starts(store: Store) -> None:
    store.workers.report(worker("old", NOW))
    store.workers.report(worker("new", NOW + KEPT_FOR))
    assert [one.name for one in store.workers.seen_since(EVER)] == ["new", "old"]
    store.workers.report(worker("newest", NOW + KEPT_FOR + timedelta(seconds=1)))
    assert [one.name for one in store.workers.seen_since(EVER)] == ["new", "newest"]


def test_a_workers_configuration_state_is_valid_last_good_or_none() -> None:
    assert worker("a", NOW).config_state is ConfigState.VALID
    assert worker("a", NOW, alarm="broken").config_state is ConfigState.LAST_GOOD
    assert worker("a", NOW, digest=None, alarm="broken").config_state is ConfigState.NONE
