"""When a second look may confirm: it begins later than any request that was in flight at the end of the first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from activities.revocation.revoke import revoke_by_handle
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.ids import new_job_id
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY, RevocationTracker
from tests.activities.revocation_calls import revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import Desk, submission

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB = "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa"
DELAY = SECOND_CHECK_DELAY.total_seconds()


def test_a_first_clean_check_counts_from_its_end() -> None:
    tracker = RevocationTracker()
    assert tracker.record_clean_check(JOB, started=0, ended=10, now=NOW) == SECOND_CHECK_DELAY
    assert tracker.record_clean_check(JOB, started=DELAY + 1, ended=DELAY + 2, now=NOW) is not None, "a request may have begun until 10"
    assert tracker.record_clean_check(JOB, started=DELAY + 10, ended=DELAY + 11, now=NOW) is None


def test_a_second_check_counts_from_its_beginning() -> None:
    tracker = RevocationTracker()
    tracker.record_clean_check(JOB, started=0, ended=1, now=NOW)
    assert tracker.record_clean_check(JOB, started=DELAY, ended=DELAY + 60, now=NOW) is not None


def test_after_a_check_that_was_not_clean_the_next_clean_one_counts_as_the_first() -> None:
    tracker = RevocationTracker()
    tracker.record_clean_check(JOB, started=0, ended=1, now=NOW)
    assert tracker.record_failed_attempt(JOB, now=NOW) == 1
    assert tracker.record_clean_check(JOB, started=2 * DELAY, ended=2 * DELAY + 1, now=NOW) == SECOND_CHECK_DELAY


@pytest.mark.servers
def test_a_job_that_no_session_ever_had_needs_no_second_look(at: Desk) -> None:
    job = new_job_id(at.deps.settings.installation, now=at.clock.now())
    at.deps.store.ledger.append([submission(job, at.clock.now())])
    assert revoke_from_outside(at, job).confirmed
    claimed = revoke_from_outside(at, at.job())
    assert (claimed.confirmed, claimed.second_check_in) == (False, SECOND_CHECK_DELAY)


@pytest.mark.servers
def test_a_lease_is_revoked_only_once_its_engine_has_ended_the_user(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    lease = held.credential.lease_id
    assert lease is not None
    with at.shop.door.closed(), pytest.raises(JustEnoughError):
        at.deps.vault.revoke_lease(lease)
    assert at.shop.can_log_in(held)
    at.deps.vault.revoke_lease(lease)
    assert not at.shop.can_log_in(held)
    assert revoke_by_handle(at.deps, job, held.credential, (), by="person", why="a test").confirmed


@pytest.mark.servers
def test_a_credential_that_was_issued_during_its_revocation_is_not_dated_to_the_check_before_it(at: Desk) -> None:
    job = at.job()
    # A kill, and its credential arrives after that: Vault was asked before.
    assert not revoke_from_outside(at, job).confirmed
    at.clock.ahead += timedelta(seconds=5)
    held = at.issue(job)
    at.clock.ahead += timedelta(seconds=5)
    assert revoke_by_session(at, job, held).confirmed
    view = at.deps.store.credentials.get(held.credential.id)
    assert view is not None
    assert view.revoked_at is not None
    assert view.confirmed_at is not None
    assert min(view.revoked_at, view.confirmed_at) > held.credential.issued_at
