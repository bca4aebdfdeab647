"""Revoking as an activity: Temporal hears of it for as long as it lasts, and of nobody but who may ask."""

from __future__ import annotations

import pytest
from temporalio.testing import ActivityEnvironment

from activities.ending import Ending, NotOurs
from justenough.messages import RevokeInput
from tests.activities.shop import Desk

pytestmark = pytest.mark.servers


def test_a_revocation_heartbeats_also_while_a_target_hangs(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    environment, beats = ActivityEnvironment(), list[object]()
    environment.on_heartbeat = lambda *details: beats.append(details)
    at.shop.door.hang()
    wanted = RevokeInput(job=job, by="compensation", why="its worker died", attempts=1)
    result = environment.run(Ending(at.deps).revoke_job, wanted)
    assert not result.confirmed
    assert result.failures
    assert len(beats) >= 2
    at.shop.door.open()


def test_what_is_no_job_of_this_installation_is_not_revoked(at: Desk) -> None:
    wanted = RevokeInput(job="j-other-01m8722504qjpy8t9ny5kcdg6s", by="compensation", why="because", attempts=1)
    with pytest.raises(NotOurs, match="no job of this installation"):
        ActivityEnvironment().run(Ending(at.deps).revoke_job, wanted)
