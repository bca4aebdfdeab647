"""What the last sweep found about each target, and since when."""

from __future__ import annotations

from datetime import datetime

from justenough.adapters.store import Store
from justenough.domain.readmodel.views import TargetCheck
from tests.adapters.store.event_samples import NOW, later


def check(name: str, failure: str | None, at: datetime) -> TargetCheck:
    return TargetCheck(name=name, failure=failure, since=at, checked_at=at)


def test_a_target_keeps_the_time_since_when_it_fails_until_it_answers(store: Store) -> None:
    store.targets.record([check("a", None, NOW), check("b", "down", NOW)])
    store.targets.record([check("a", "down", later(10)), check("b", "slow", later(10))])
    assert store.targets.all() == (
        TargetCheck(name="a", failure="down", since=later(10), checked_at=later(10)),
        TargetCheck(name="b", failure="slow", since=NOW, checked_at=later(10)),
    )
    store.targets.record([check("b", None, later(20))])
    assert store.targets.all() == (check("b", None, later(20)),), "the catalog has no other any more"
