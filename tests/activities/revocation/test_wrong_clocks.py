"""Workers whose clocks differ: what one of them recorded with a time in the future must not hide active credentials from the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from activities.sweep_activity import CLAIM_LEASE, SweepActivities
from justenough.domain.jobs.states import RevocationState
from tests.activities.revocation_calls import revocation_state, revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers
AHEAD = timedelta(hours=1)


def test_what_is_seen_alive_after_a_proof_is_shown_although_the_clock_of_the_proof_was_ahead(at: Desk) -> None:
    at.clock.stepped = AHEAD
    job = at.job()
    assert revoke_by_session(at, job, at.issue(job)).confirmed
    at.clock.stepped = timedelta()
    left = at.issue(job, 2, record=False)

    with at.shop.door.closed():
        assert not any(revoke_from_outside(at, job).confirmed for _ in range(2))
    assert revocation_state(at, job) is RevocationState.OVERDUE

    at.clock.ahead = timedelta(minutes=1)
    revoke_from_outside(at, job)
    at.clock.ahead = timedelta(minutes=2)
    assert revoke_from_outside(at, job).confirmed
    assert not at.shop.can_log_in(left)
    assert revocation_state(at, job) is RevocationState.CONFIRMED


async def test_a_dead_session_whose_clock_was_ahead_is_found_once_it_has_not_renewed_for_the_length_of_a_lease(at: Desk) -> None:
    job, claims, sweep = at.job(), at.deps.store.claims, SweepActivities(at.deps, cast("Any", None))
    view = at.deps.store.jobs.get(job)
    assert view is not None

    async def is_gone() -> bool:
        """As the sweep sees it if Temporal does not know the job."""
        return await sweep._is_closed(job, view, None)

    for passed in (timedelta(), CLAIM_LEASE, 2 * CLAIM_LEASE):
        at.clock.ahead = passed
        assert claims.renew(job, "a-session", at.clock.now() + AHEAD), "its worker lives, with its clock ahead"
        assert not await is_gone()
    at.clock.ahead += CLAIM_LEASE + timedelta(seconds=1)
    assert await is_gone()
