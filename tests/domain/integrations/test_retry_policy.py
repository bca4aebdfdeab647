"""When a delivery is retried, and when no longer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.units import duration_text
from justenough.domain.integrations.retry_policy import (
    GONE_REST_S,
    JITTER,
    MAX_RETRY_AFTER_S,
    REFUSED_RETRY_DELAYS_S,
    RETRY_DELAYS_S,
    DeliveryFault,
    DeliveryOutcome,
    fault_of,
    next_attempt,
    outcome_of_answer,
)

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
DAY = 24 * 3600
EVENTS = Path(__file__).parents[3] / "docs" / "reference" / "events.md"


@pytest.mark.parametrize(
    "statuses, fault",
    [
        ((200, 201, 202, 204, 299), None),
        ((408, 425, 429, 500, 502, 503, 504, 599, 100, 600), DeliveryFault.AWAY),
        ((301, 302, 307, 308, 400, 401, 403, 404, 405, 413, 422, 451), DeliveryFault.REFUSED),
        ((410,), DeliveryFault.GONE),
    ],
)
def test_each_http_status_has_its_kind_of_fault(statuses: tuple[int, ...], fault: DeliveryFault | None) -> None:
    assert {fault_of(status) for status in statuses} == {fault}


def test_a_receiver_that_is_away_is_tried_for_about_a_day_and_one_that_refuses_for_some_hours() -> None:
    assert sorted(RETRY_DELAYS_S) == list(RETRY_DELAYS_S)
    assert 0.9 * DAY < sum(RETRY_DELAYS_S) < 1.1 * DAY
    assert 2 * 3600 < sum(REFUSED_RETRY_DELAYS_S) < 4 * 3600
    for fault, delays in ((DeliveryFault.AWAY, RETRY_DELAYS_S), (DeliveryFault.REFUSED, REFUSED_RETRY_DELAYS_S), (DeliveryFault.GONE, ())):
        found = [next_attempt(DeliveryOutcome(fault), attempts=n, now=NOW, chance=0) for n in range(1, len(delays) + 2)]
        assert found == [*(NOW + timedelta(seconds=delay) for delay in delays), None]


@given(st.sampled_from([DeliveryFault.AWAY, DeliveryFault.REFUSED]), st.integers(1, 20), st.floats(0, 1), st.integers(0, MAX_RETRY_AFTER_S))
def test_retries_have_bounded_random_delays_and_respect_retry_after(fault: DeliveryFault, attempts: int, chance: float, rest: int) -> None:
    delays = RETRY_DELAYS_S if fault is DeliveryFault.AWAY else REFUSED_RETRY_DELAYS_S
    found = next_attempt(DeliveryOutcome(fault, rest=rest), attempts=attempts, now=NOW, chance=chance)
    if attempts > len(delays):
        assert found is None
        return
    assert found is not None
    seconds, least = (found - NOW).total_seconds(), delays[attempts - 1]
    assert max(least, rest) - 1e-3 <= seconds <= max(least * (1 + JITTER), rest) + 1e-3


@pytest.mark.parametrize(
    "status, header, rest",
    [
        (429, "120", 120),
        (503, "120", 120),
        (503, " 7 ", 7),
        (503, "999999", MAX_RETRY_AFTER_S),
        (503, format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (503, format_datetime(NOW + timedelta(days=90), usegmt=True), MAX_RETRY_AFTER_S),
        (503, format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        (503, "Sat, 31 Jan 2026 09:31:00", 60),
        (503, "soon", 0),
        (503, "Sat, 31 Jan 99999999999 09:31:00 GMT", 0),
        (503, "Sat, 31 Jan 2026 09:31:00 +99999999999999999999", 0),
        (503, "-5", 0),
        (503, "١٢", 0),
        (503, "", 0),
        (503, None, 0),
        (500, "120", 0),
        (200, "120", 0),
        (410, None, GONE_REST_S),
    ],
)
def test_a_receiver_can_ask_for_a_bounded_pause_with_retry_after(status: int, header: str | None, rest: int) -> None:
    outcome = outcome_of_answer(status, "Phrase", retry_after=header, now=NOW)
    assert (outcome.rest, outcome.why) == (rest, f"{status} Phrase")


def test_the_documentation_lists_the_actual_retry_delays() -> None:
    text = EVENTS.read_text()
    for delays in (RETRY_DELAYS_S, REFUSED_RETRY_DELAYS_S):
        assert ", ".join(duration_text(delay) for delay in delays) in text
