"""Ids are unique, sort by time, contain their job, and are parsed strictly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.ids import (
    CREDENTIAL_ID,
    JOB_ID,
    REQUEST_ID,
    credential_id,
    first_job_id,
    installation_of,
    job_of,
    new_job_id,
    request_id,
)
from tests.support.domain_samples import NOW

installations = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


@given(installations, st.integers(1, 999_999))
def test_request_and_credential_ids_contain_the_id_of_their_job(installation: str, number: int) -> None:
    job = new_job_id(installation, now=NOW)
    assert JOB_ID.fullmatch(job)
    assert installation_of(job) == installation
    assert REQUEST_ID.fullmatch(request_id(job, number))
    assert CREDENTIAL_ID.fullmatch(credential_id(job, number))
    assert job_of(request_id(job, number)) == job_of(credential_id(job, number)) == job


def test_ids_are_unique_and_sort_by_time() -> None:
    made = [new_job_id("dev", now=NOW + timedelta(milliseconds=number)) for number in range(200)]
    assert made == sorted(set(made))
    assert len({new_job_id("dev", now=NOW) for _ in range(1000)}) == 1000
    ahead = new_job_id("dev", now=NOW + timedelta(hours=1))
    assert made[0] < ahead < new_job_id("dev", now=NOW, after=ahead)
    assert made[0] < new_job_id("dev", now=NOW + timedelta(seconds=1), after=made[0]) < ahead


def test_the_same_job_and_number_always_make_the_same_id() -> None:
    job = new_job_id("dev", now=NOW)
    assert request_id(job, 1) == request_id(job, 1) != request_id(job, 2)
    assert request_id(job, 1) != credential_id(job, 1)


@pytest.mark.parametrize("installation", ["", "Dev", "a-b", "ninechars", "a/b", "dev\n", "é"])
def test_an_installation_that_is_not_a_name_is_refused(installation: str) -> None:
    with pytest.raises(ValueError, match="installation"):
        new_job_id(installation, now=NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "j-dev-",
        "j-dev-01kg9b4zv0e8r2m6x3c5n7p9q",
        "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qaa",
        "j-dev-01KG9B4ZV0E8R2M6X3C5N7P9QA",
        "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qu",
        "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa\n",
        "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa-1",
        "j-dev-../kg9b4zv0e8r2m6x3c5n7p9qa",
        " j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa",
        "r-dev-01kg9b4zv0e8r2m6x3c5n7p9qa",
    ],
)
def test_a_text_that_is_not_a_job_id_names_no_installation(text: str) -> None:
    assert installation_of(text) is None


def test_a_database_user_of_the_longest_role_still_carries_the_whole_job_id() -> None:
    # Vault's database engine names users `<rand8>-token-<job id>-<role>`, cut at 63; the id must not be.
    job = new_job_id("a" * 8, now=NOW)
    assert job in f"{'x' * 8}-token-{job}-{'r' * 63}"[:63]


@pytest.mark.parametrize("since", [datetime(197, 7, 5, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)])
def test_every_job_id_of_a_time_is_at_least_the_first_job_id_of_that_time(since: datetime) -> None:
    first = first_job_id("dev", since=since)
    assert first <= new_job_id("dev", now=max(since, datetime(1970, 1, 1, tzinfo=UTC)))
    assert first > "j-dev"
