"""What needs attention: when half of a time is over, who has acknowledged what, and how items are sorted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from justenough.domain.readmodel.attention import Acknowledgement, AttentionItem, AttentionKind, is_half_gone, with_acknowledgements

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def item(key: str, *, since: float = 0) -> AttentionItem:
    return AttentionItem(key=key, kind=AttentionKind(key.partition("/")[0]), subject=key, since=at(since))


def acknowledgement(key: str, *, minutes: float) -> Acknowledgement:
    return Acknowledgement(item=key, person="lead", person_id="e-lead", note="", at=at(minutes))


@pytest.mark.parametrize("minutes, is_gone", [(0, False), (7, False), (7.5, False), (7.6, True), (16, True)])
def test_more_than_half_of_a_time_is_over(minutes: float, is_gone: bool) -> None:
    assert is_half_gone(NOW, at(15), now=at(minutes)) is is_gone


def test_a_time_without_an_end_is_never_half_over() -> None:
    assert not is_half_gone(NOW, None, now=at(10_000))


def test_items_are_sorted_by_kind_and_in_each_kind_the_newest_comes_first() -> None:
    keys = ["worker/a", "failed/j-1", "overdue/Vault", "failed/j-2"]
    items = [item(key, since=minutes) for minutes, key in enumerate(keys)]
    assert [one.key for one in with_acknowledgements(items, {})] == ["overdue/Vault", "failed/j-2", "failed/j-1", "worker/a"]


@pytest.mark.parametrize("minutes, counts", [(0, True), (5, True), (-1, False)])
def test_an_acknowledgement_counts_unless_the_item_began_again_after_it(minutes: float, counts: bool) -> None:
    key = "overdue/Vault"
    (found,) = with_acknowledgements([item(key)], {key: acknowledgement(key, minutes=minutes)})
    assert (found.acknowledged is not None) is counts
