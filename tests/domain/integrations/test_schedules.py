"""The schedules of triggers.yaml: what they may say, and at which moments they launch something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.cron import read_cron
from justenough.domain.integrations.triggers import CATCHUP_WINDOW, MAX_SCHEDULES, read_triggers, why_no_occasion

YAML = (
    "schedules: {nightly: {cron: '0 2 * * *', timezone: Europe/Berlin, job: jobs/one.yaml, params: {a: '1'}, overlap: skip, paused: false}}"
)
NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


def paths(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as told:
        read_triggers(text)
    return [problem.path for problem in told.value.problems]


def test_a_schedule_needs_only_a_cron_expression_and_a_job() -> None:
    whole = read_triggers(YAML).schedules["nightly"]
    assert (whole.timezone, whole.params, whole.times) == ("Europe/Berlin", {"a": "1"}, read_cron("0 2 * * *"))
    least = read_triggers("schedules: {one: {cron: '* * * * *', job: jobs/one.yaml}}").schedules["one"]
    assert (least.timezone, least.params, least.overlap, least.paused) == ("UTC", {}, "skip", False)
    assert read_triggers("{}").schedules == {}


@pytest.mark.parametrize(
    "old, new, path",
    [
        ("0 2 * * *", "0 2 * *", "schedules.nightly.cron"),
        ("0 2 * * *", "@daily", "schedules.nightly.cron"),
        ("cron: '0 2 * * *', ", "", "schedules.nightly.cron"),
        ("'0 2 * * *'", "5", "schedules.nightly.cron"),
        ("Europe/Berlin", "../../etc/passwd", "schedules.nightly.timezone"),
        ("Europe/Berlin", "/etc/passwd", "schedules.nightly.timezone"),
        ("jobs/one.yaml", "../one.yaml", "schedules.nightly.job"),
        ("overlap: skip", "overlap: buffer_one", "schedules.nightly.overlap"),
        ("paused: false", "paused: maybe", "schedules.nightly.paused"),
        ("a: '1'", "A: '1'", "schedules.nightly.params.A"),
        ("overlap: skip", "jitter: 5m", "schedules.nightly.jitter"),
        ("nightly:", "Nightly_x:", "schedules.Nightly_x"),
    ],
)
def test_each_mistake_in_a_schedule_is_reported_by_its_place(old: str, new: str, path: str) -> None:
    assert old in YAML
    assert paths(YAML.replace(old, new)) == [path]


def test_a_file_has_at_most_a_hundred_schedules() -> None:
    many = ", ".join(f"s{number}: {{cron: '* * * * *', job: jobs/one.yaml}}" for number in range(MAX_SCHEDULES + 1))
    assert paths(f"schedules: {{{many}}}") == ["schedules"]


@pytest.mark.parametrize(
    "at, why",
    [
        (NOW, None),
        (NOW + timedelta(seconds=1), "is not a scheduled time"),
        (NOW + timedelta(days=1), "is in the future"),
        (NOW - timedelta(days=1), "too long ago"),
        (NOW - timedelta(hours=1), "is not a scheduled time"),
    ],
)
def test_a_moment_that_is_not_an_occasion_or_not_now_launches_nothing(at: datetime, why: str | None) -> None:
    told = why_no_occasion(read_cron("0 2 * * *"), local=at, now=NOW)
    assert told is None if why is None else why in str(told)


@given(st.integers(0, 60 * 48), st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"]))
def test_an_occasion_is_valid_for_an_hour_in_the_schedules_own_time_zone(minutes: int, zone: str) -> None:
    at = datetime(2026, 10, 25, tzinfo=UTC) + timedelta(minutes=minutes)
    local = at.astimezone(ZoneInfo(zone))
    cron = read_cron(f"{local.minute} {local.hour} * * *")
    assert why_no_occasion(cron, local=local, now=at) is None
    assert why_no_occasion(cron, local=local, now=at + CATCHUP_WINDOW) is None
    assert why_no_occasion(cron, local=local, now=at + CATCHUP_WINDOW + timedelta(minutes=3)) is not None
    assert why_no_occasion(cron, local=local, now=at - timedelta(minutes=3)) is not None
