"""The named reasons of results in words."""

from __future__ import annotations

import pytest

from justenough.domain.jobs.result_reasons import ResultReason, result_reason_text


@pytest.mark.parametrize("reason", ResultReason, ids=str)
def test_each_named_reason_is_shown_in_words_with_its_name(reason: ResultReason) -> None:
    words, name = result_reason_text(reason.value).rsplit(" ", 1)
    assert (" " in words, name) == (True, f"({reason.value})")


@pytest.mark.parametrize("reason", ["exit code 3", "refused: its order has expired", "worker_lost: by its own words", ""])
def test_any_other_reason_is_shown_as_it_is(reason: str) -> None:
    assert result_reason_text(reason) == reason


def test_no_reason_is_shown_as_nothing() -> None:
    assert result_reason_text(None) == ""
