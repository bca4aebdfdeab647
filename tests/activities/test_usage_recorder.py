"""A job's use of its model reaches the ledger, however slow the ledger is."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from activities.broker.llm.usage_recorder import ModelUsageRecorder
from justenough.adapters.store import Store
from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.ledger_repository import LedgerRepository
from justenough.domain.ledger.events import Event
from justenough.domain.llm.metering import TokenUsage
from justenough.domain.readmodel.views import EntryView
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers


class SlowLedger(LedgerRepository):
    """A ledger whose first append waits until a test says so."""

    go: threading.Event

    def append(self, events: Iterable[Event]) -> tuple[EntryView, ...]:
        assert self.go.wait(180)
        return super().append(events)


class FailingLedger(LedgerRepository):
    """A ledger whose first append fails."""

    failed = False

    def append(self, events: Iterable[Event]) -> tuple[EntryView, ...]:
        if not self.failed:
            self.failed = True
            raise StoreUnavailable("the store restarts")
        return super().append(events)


class FailingStore(Store):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ledger = FailingLedger(self._engine, self._commits)
        self.migrate()


class SlowStore(Store):
    def __init__(self, url: str, go: threading.Event) -> None:
        super().__init__(url)
        self.ledger = SlowLedger(self._engine, self._commits)
        self.ledger.go = go
        self.migrate()


async def test_usage_that_is_due_during_another_write_is_recorded_right_after_it(at: Desk, tmp_path: Path) -> None:
    job, go = at.job(), threading.Event()
    store = SlowStore(f"sqlite:///{tmp_path / 'store.db'}", go)
    used = ModelUsageRecorder(replace(at.deps, store=store), job, "default")
    used.record_key_use(f"{job.replace('j-', 'c-', 1)}-1")
    used.count_call("small", "done", TokenUsage(1, 2, estimated=False))
    assert "model.used" not in at.entry_types(job)
    go.set()
    await used.wait_written()
    assert at.entry_types(job)[-2:] == ["credential.used", "model.used"]
    assert used.unrecorded_events() == ()
    store.close()


async def test_usage_is_recorded_while_the_job_runs_although_a_write_failed(at: Desk, tmp_path: Path) -> None:
    job, now = at.job(), 0.0
    store = FailingStore(f"sqlite:///{tmp_path / 'store.db'}")
    used = ModelUsageRecorder(replace(at.deps, store=store, ticks=lambda: now), job, "default")
    used.record_key_use(f"{job.replace('j-', 'c-', 1)}-1")
    await used.wait_written()
    used.count_call("small", "done", TokenUsage(1, 2, estimated=False))
    await used.wait_written()
    assert "credential.used" not in at.entry_types(job)
    now = 30.0
    used.count_call("small", "done", TokenUsage(3, 4, estimated=False))
    await used.wait_written()
    assert at.entry_types(job)[-2:] == ["credential.used", "model.used"]
    store.close()
