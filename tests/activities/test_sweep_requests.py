"""What the sweep does for people who asked that a running job's credential be revoked, if no worker has done it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from activities.sweep_activity import SweepActivities
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers


async def test_a_request_to_revoke_is_carried_out_however_many_came_before_it(at: Desk) -> None:
    job = at.job()
    held, sweep = at.issue(job), SweepActivities(at.deps, cast("Any", None))

    def requested(credential: str) -> Event:
        who = {"person": "e-ops", "name": "ops"}
        return build_event(EventType.REVOCATION_REQUESTED, job, at=at.deps.now(), about=credential, credential=credential, **who)

    at.deps.store.ledger.append([requested(f"{held.credential.id}.{number}") for number in range(2, 103)])
    at.deps.store.ledger.append([requested(held.credential.id)])
    at.clock.ahead = timedelta(seconds=10)
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert await sweep._revoke_requested(job, view) is None
    assert not at.shop.can_log_in(held)
