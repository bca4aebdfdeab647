"""Moments that people type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from console.presentation.time_text import parse_moment

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text, moment",
    [
        ("", None),
        ("  ", None),
        ("2026-01-30", NOW.replace(day=30, hour=0, minute=0)),
        ("2026-01-31T10:30+01:00", NOW),
        ("2026-01-31T09:30:00Z", NOW),
        ("7d", NOW - timedelta(days=7)),
        (" 90m ", NOW - timedelta(minutes=90)),
    ],
)
def test_a_moment_can_be_typed_as_a_date_a_time_or_an_age(text: str, moment: datetime | None) -> None:
    assert parse_moment(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "7", "7w", "-7d", "99999999d", "2026-13-01", "d"])
def test_any_other_text_for_a_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="like 2026-01-31 or 2026-01-31T18:30, or how long ago, like 7d or 2h"):
        parse_moment(text, now=NOW)
