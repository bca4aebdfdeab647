"""Five cron fields: which minutes they match, and which forms are refused because other programs read them differently."""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.integrations.cron import FIELD_BOUNDS, FIELD_NAMES, ranges, read_cron

MONDAY = datetime(2026, 11, 23)  # noqa: DTZ001 - as clocks show it: a cron knows no zones


@pytest.mark.parametrize(
    "text, taken, left",
    [
        ("0 2 * * *", ["2026-11-23 02:00", "2026-12-31 02:00"], ["2026-11-23 02:01", "2026-11-23 14:00"]),
        ("*/15 * * * *", ["2026-11-23 00:00", "2026-11-23 07:45"], ["2026-11-23 00:14", "2026-11-23 00:50"]),
        ("5/20 8-9 * * *", ["2026-11-23 08:05", "2026-11-23 09:45"], ["2026-11-23 08:00", "2026-11-23 10:05"]),
        ("0 9,17 * * mon-fri", ["2026-11-23 09:00", "2026-11-27 17:00"], ["2026-11-28 09:00", "2026-11-29 17:00"]),
        ("0 0 * * 7", ["2026-11-29 00:00"], ["2026-11-28 00:00", "2026-11-30 00:00"]),
        ("0 0 * * 0", ["2026-11-29 00:00"], ["2026-11-23 00:00"]),
        ("0 0 * * 5-7", ["2026-11-27 00:00", "2026-11-28 00:00", "2026-11-29 00:00"], ["2026-11-26 00:00", "2026-11-30 00:00"]),
        ("0 0 * * */2", ["2026-11-29 00:00", "2026-11-24 00:00", "2026-11-28 00:00"], ["2026-11-23 00:00"]),
        ("0 0 1-31/10 JAN,Jul *", ["2027-01-21 00:00", "2027-07-31 00:00"], ["2027-01-22 00:00", "2027-02-21 00:00"]),
        ("30 3 29 2 *", ["2028-02-29 03:30"], ["2028-02-28 03:30"]),
    ],
)
def test_a_cron_expression_matches_the_minutes_that_it_names(text: str, taken: list[str], left: list[str]) -> None:
    cron = read_cron(text)
    assert [moment for moment in taken if not cron.matches(datetime.fromisoformat(moment))] == []
    assert [moment for moment in left if cron.matches(datetime.fromisoformat(moment))] == []


def test_a_cron_expression_matches_only_whole_minutes() -> None:
    cron = read_cron("* * * * *")
    assert cron.matches(MONDAY)
    assert not cron.matches(MONDAY + timedelta(seconds=1))
    assert not cron.matches(MONDAY + timedelta(microseconds=1))


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "this one has 0"),
        ("0 2 * *", "five fields"),
        ("0 0 2 * * *", "this one has 6"),
        ("@daily", "this one has 1"),
        ("60 * * * *", "minute: 60 is not from 0 to 59"),
        ("* 24 * * *", "hour: 24 is not from 0 to 23"),
        ("* * 0 * *", "day of month: 0 is not from 1 to 31"),
        ("* * * 13 *", "month: 13 is not from 1 to 12"),
        ("* * * * 8", "day of week: 8 is not from 0 to 7"),
        ("* * * * 7-1", "'7-1' matches nothing"),
        ("5-1 * * * *", "'5-1' matches nothing"),
        ("*/0 * * * *", "'*/0' matches nothing"),
        ("* * * * xyz", "day of week: unknown value 'xyz'"),
        ("mon * * * *", "minute: unknown value 'mon'"),
        ("1, * * * *", "minute: '' must be"),
        ("-5 * * * *", "minute: '-5' must be"),
        ("? * * * *", "minute: '?' must be"),
        ("* * L * *", "day of month: 'l' must be"),
        ("²  * * * *", "must be *"),
        ("0 0 1 * mon", "not both"),
        ("0 0 31 2,4,6 *", "none of these months has such a day"),
    ],
)
def test_each_mistake_in_a_cron_expression_is_reported_by_its_field(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        read_cron(text)


FIELDS = st.sampled_from(range(5)).flatmap(
    lambda number: st.tuples(st.just(number), st.sets(st.integers(*FIELD_BOUNDS[number]), min_size=1))
)


@given(FIELDS)
def test_a_list_in_a_cron_field_matches_exactly_the_listed_numbers(field: tuple[int, set[int]]) -> None:
    number, values = field
    parts = ["*"] * 5
    parts[number] = ",".join(map(str, values))
    found = read_cron(" ".join(parts))
    fields = (found.minutes, found.hours, found.days, found.months, found.weekdays)
    assert fields[number] == {value % 7 for value in values} if FIELD_NAMES[number] == "day of week" else fields[number] == values


@given(st.frozensets(st.integers(0, 59), min_size=1))
def test_the_ranges_of_a_cron_field_cover_exactly_its_values_and_are_never_adjacent(field: frozenset[int]) -> None:
    found = ranges(field)
    assert {value for first, last in found for value in range(first, last + 1)} == field
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(found))


@given(st.text(max_size=20) | st.lists(st.text("0123456789*/-, a", max_size=5), min_size=5, max_size=5).map(" ".join))
def test_any_cron_expression_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        cron = read_cron(text)
    except ValueError as error:
        told = str(error)
    else:
        told = "taken" if all((cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays)) else ""
    assert told
    assert "\n" not in told
