"""When what should have happened is overdue: one table per question."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from justenough.domain.ledger.overdue import (
    MAX_POLL_AGE,
    MAX_SWEEP_AGE,
    REVOCATION_GRACE,
    end_session_advice,
    failures_text,
    find_unpolled_queues,
    is_revocation_overdue,
    is_sweep_late,
    is_worth_recording,
    session_ends,
)
from tests.support.domain_samples import NOW

MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    "failed, took, overdue",
    [
        (1, timedelta(0), False),
        (1, REVOCATION_GRACE - MOMENT, False),
        (1, REVOCATION_GRACE, True),
        (1, timedelta(minutes=2), True),
        (2, timedelta(0), True),
        (100, timedelta(0), True),
    ],
)
def test_a_revocation_is_overdue_at_its_second_failure_or_once_one_attempt_took_too_long(
    failed: int, took: timedelta, *, overdue: bool
) -> None:
    assert is_revocation_overdue(failed=failed, took=took) is overdue


def test_only_failures_whose_number_is_a_power_of_two_are_recorded() -> None:
    assert [failed for failed in range(1, 70) if is_worth_recording(failed=failed)] == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    "ended, since, late",
    [
        (NOW, NOW - timedelta(days=1), False),
        (NOW - MAX_SWEEP_AGE, NOW - timedelta(days=1), False),
        (NOW - MAX_SWEEP_AGE - MOMENT, NOW - timedelta(days=1), True),
        (None, NOW - timedelta(days=1), True),
        (None, NOW, False),
        (NOW - timedelta(days=1), NOW, False),
        (NOW + timedelta(hours=1), NOW, False),
    ],
)
def test_a_sweep_is_overdue_after_a_minute_without_one(ended: datetime | None, since: datetime, *, late: bool) -> None:
    assert is_sweep_late(ended, since=since, now=NOW) is late


def test_a_queue_without_a_recent_poll_is_unpolled() -> None:
    asked = {"never": None, "once": NOW - MAX_POLL_AGE - MOMENT, "open": NOW - MAX_POLL_AGE, "now": NOW}
    assert find_unpolled_queues(asked, now=NOW) == ("never", "once")


LOCK = "lock in db:5432/shop: session 4711 of backup (application nightly) holds locks on what is left of the job, "


@pytest.mark.parametrize(
    "failures, advised",
    [
        (
            (LOCK + "in a transaction since 2026-01-31T09:20:00Z",),
            ("WHERE pid = 4711 AND xact_start < timestamptz '2026-01-31T09:20:00Z'",),
        ),
        (
            (LOCK + "since when is hidden from the observer",),
            ("(psql -h db -p 5432 -d shop -U SUPERUSER) and end it: SELECT pg_catalog.pg_terminate_backend(4711)",),
        ),
        ((LOCK + "in a transaction since x", LOCK.replace("4711", "12")), ("backend(4711)", "backend(12)")),
        (("lock in db:5432/shop: could not check which session holds one", f"space in db: {LOCK}"), ()),
    ],
)
def test_the_advice_about_a_lock_names_each_session_and_the_begin_of_its_transaction_if_seen(
    failures: tuple[str, ...], advised: tuple[str, ...]
) -> None:
    advice = end_session_advice(failures)
    assert all(statement in advice for statement in advised)
    assert advice.count("SELECT") == len(advised)
    ends = session_ends(failures)
    assert [one.target for one in ends] == ["db:5432/shop"] * len(advised)
    assert all(one.statement.startswith("SELECT ") and one.statement.endswith(";") for one in ends)
    assert not advice or advice.endswith(ends[-1].statement), "nothing follows a statement"


def test_a_lock_that_several_failures_name_is_advised_about_once() -> None:
    assert end_session_advice([LOCK, LOCK]).count("SELECT") == 1


@pytest.mark.parametrize(
    "target, command",
    [
        ("db:5432/shop", "psql -h db -p 5432 -d shop -U SUPERUSER"),
        ("local:5432/shop", "psql -p 5432 -d shop -U SUPERUSER"),
        ("/var/run/postgresql:5433/shop", "psql -h /var/run/postgresql -p 5433 -d shop -U SUPERUSER"),
        ("::1:5432/shop", "psql -h ::1 -p 5432 -d shop -U SUPERUSER"),
        ("a,b:5432,5433/shop", "psql -h a,b -p 5432,5433 -d shop -U SUPERUSER"),
        ("db:5432/", "psql -h db -p 5432 -U SUPERUSER"),
        ("db:5432/$(reboot)", "psql -h db -p 5432 -d '$(reboot)' -U SUPERUSER"),
        ("elsewhere", "psql -h elsewhere -U SUPERUSER"),
    ],
)
def test_the_advice_says_how_to_connect_to_the_target(target: str, command: str) -> None:
    lock = LOCK.replace("db:5432/shop", target) + "in a transaction since 2026-01-31T09:20:00Z"
    (end,) = session_ends([lock])
    assert (end.target, end.session, end.connect) == (target, "session 4711 of backup (application nightly)", command)
    advice = end_session_advice([lock])
    assert advice.index(end.session) < advice.index(command) < advice.index(end.statement)


def test_the_cause_of_several_failed_steps_is_named_once() -> None:
    sealed = "Vault answered 503 (Vault is sealed)"
    steps = {"the job's token role": "DELETE auth/token/roles/je-job-x", "lease a/b": "PUT sys/leases/revoke/a/b"}
    failures = [*(f"{step}: {call}: {sealed}" for step, call in steps.items()), "users in db:5432/shop: v-x", f"lease a/b: PUT x: {sealed}"]
    assert failures_text(failures) == f"{sealed}: the job's token role, lease a/b; users in db:5432/shop: v-x"
    assert failures_text(["target db:5432/shop: away"]) == "target db:5432/shop: away"
    assert not failures_text(())
