"""Workers whose clocks differ: what one wrote with a time in the future must not hide from the others what is alive."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.sweep_activity import CLAIM_LEASE, WATCH_S, SweepActivities, TooEarly
from justenough.adapters.store import CLAIM_RENEWAL_INTERVAL_S
from justenough.domain.jobs.states import RevocationState
from tests.activities.revocation_calls import revocation_state, revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers
AHEAD = timedelta(hours=1)
PROGRAMS = Path(sys.executable).parent


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


@pytest.mark.parametrize("behind", [AHEAD, CLAIM_LEASE + timedelta(seconds=1)], ids=str)
async def test_a_session_whose_lease_is_over_by_the_sweeps_clock_alone_counts_as_alive_while_it_renews(at: Desk, behind: timedelta) -> None:
    job, claims, sweep = at.job(), at.deps.store.claims, SweepActivities(at.deps, cast("Any", None))
    view = at.deps.store.jobs.get(job)
    assert view is not None

    def renew() -> None:
        assert claims.renew(job, "a-session", at.clock.now() - behind)

    renew()
    with pytest.raises(TooEarly):
        await sweep._is_closed(job, view, None)
    for _ in range(3):
        at.clock.ahead += timedelta(seconds=CLAIM_RENEWAL_INTERVAL_S)
        renew()
        assert not await sweep._is_closed(job, view, None)
    at.clock.ahead += timedelta(seconds=WATCH_S - 1)
    assert not await sweep._is_closed(job, view, None), "it may be about to renew"
    at.clock.ahead += timedelta(seconds=1)
    assert await sweep._is_closed(job, view, None)


async def test_a_dead_session_that_a_worker_sees_for_the_first_time_is_revoked_in_the_same_sweep(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    at.clock.ahead = CLAIM_LEASE + timedelta(seconds=1)
    async with await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(PROGRAMS / "temporal-test-server")) as empty:
        report = await SweepActivities(at.deps, empty.client).run()
    assert not at.shop.can_log_in(held), report


@pytest.mark.parametrize("ahead", [timedelta(seconds=20), AHEAD, -timedelta(seconds=20), -AHEAD], ids=str)
def test_a_worker_whose_clock_differs_neither_sweeps_beside_the_others_nor_hides_how_long_the_store_has_been_steady(
    at: Desk, ahead: timedelta
) -> None:
    sweeps, other = at.deps.store.sweeps, SweepActivities(replace(at.deps, now=lambda: at.clock.now() + ahead), cast("Any", None))
    sweeps.begin(now=at.clock.now(), by_clock=False)
    # At first sight it has only its clock.
    other.begin_if_idle()
    at.clock.ahead += timedelta(seconds=1)
    sweeps.begin(now=at.clock.now(), by_clock=False)
    begun = []
    for second in range(1, 61):
        at.clock.ahead += timedelta(seconds=1)
        if second % 10 == 0:
            sweeps.begin(now=at.clock.now(), by_clock=False)
        if second % 3 == 0:
            begun.append(other.begin_if_idle())
    assert not any(begun)
    last = sweeps.last()
    assert last is not None
    assert (last.by_clock, last.steady_since <= at.clock.now() - timedelta(seconds=59)) == (False, True)
    # No worker sweeps any more.
    for _ in range(6):
        at.clock.ahead += timedelta(seconds=3)
        begun.append(other.begin_if_idle())
    assert begun.count(True) == (1 if ahead > timedelta() or ahead == -AHEAD else 0)
