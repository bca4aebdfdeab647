"""When workers last swept: one at a time may sweep by its own clock, and only what a worker recorded counts."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from justenough.adapters.store import Store
from justenough.domain.readmodel.views import SweepView
from tests.adapters.store.event_samples import NOW, later
from tests.adapters.store.test_concurrency import race

IDLE = timedelta(seconds=13)


def test_nobody_has_swept_a_new_installation(store: Store) -> None:
    assert store.sweeps.last() is None
    store.sweeps.begin(now=NOW, by_clock=False)
    assert store.sweeps.last() == SweepView(active_at=NOW, steady_since=NOW, ended_at=None, by_clock=False)


def test_a_worker_sweeps_by_its_clock_only_if_none_has_swept_for_a_while(store: Store) -> None:
    assert store.sweeps.begin_if_idle(now=NOW, idle=IDLE)
    assert not store.sweeps.begin_if_idle(now=later(12), idle=IDLE)
    store.sweeps.renew(now=later(12))
    assert not store.sweeps.begin_if_idle(now=later(24), idle=IDLE)
    store.sweeps.end(now=later(25))
    assert not store.sweeps.begin_if_idle(now=later(37), idle=IDLE)
    store.sweeps.begin(now=later(38), by_clock=False)
    assert store.sweeps.last() == SweepView(active_at=later(38), steady_since=NOW, ended_at=later(25), by_clock=False)
    assert store.sweeps.begin_if_idle(now=later(52), idle=IDLE)
    assert store.sweeps.last() == SweepView(active_at=later(52), steady_since=NOW, ended_at=later(25), by_clock=True)


def test_after_an_outage_the_store_is_known_to_take_writes_only_since_the_next_sweep(store: Store) -> None:
    since = []
    for by_clock, seconds in ((False, 0), (False, 30), (False, 61), (True, 91), (True, 122)):
        if by_clock:
            assert store.sweeps.begin_if_idle(now=later(seconds), idle=IDLE)
        else:
            store.sweeps.begin(now=later(seconds), by_clock=False)
        last = store.sweeps.last()
        assert last is not None
        since.append(last.steady_since)
    assert since == [NOW, NOW, later(61), later(61), later(122)]
    # The same holds if the outage began during a sweep.
    store.sweeps.renew(now=later(153))
    last = store.sweeps.last()
    assert last is not None
    assert last.steady_since == later(153)


def test_a_sweep_dated_in_the_future_does_not_block_the_next_sweep(store: Store) -> None:
    store.sweeps.begin(now=later(3600), by_clock=True)
    assert store.sweeps.begin_if_idle(now=NOW, idle=IDLE)


def test_after_a_clock_that_was_ahead_the_store_is_known_to_take_writes_since_the_next_sweep(store: Store) -> None:
    store.sweeps.begin(now=NOW, by_clock=False)
    store.sweeps.renew(now=later(3600))
    store.sweeps.begin(now=later(10), by_clock=False)
    last = store.sweeps.last()
    assert last is not None
    assert last.steady_since == later(10)


def test_only_one_of_many_workers_begins_a_sweep_that_is_due(store: Store) -> None:
    for now in (NOW, later(20)):
        assert race(8, partial(lambda now, _: store.sweeps.begin_if_idle(now=now, idle=IDLE), now)).count(True) == 1
