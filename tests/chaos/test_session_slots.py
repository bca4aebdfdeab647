"""A worker whose session slots are all taken still ends and revokes its jobs."""

from __future__ import annotations

import pytest

from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Shop, Witness, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers


def test_a_job_can_be_killed_while_other_jobs_use_every_slot(rig: Rig, ops: Human, shop: Shop, witness: Witness) -> None:
    rig.start_alone(JUSTENOUGH_MAX_SESSIONS="1")
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300"))
    login = witness.login()
    waiting = ops.launch(spec("true"))
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    until(lambda: not shop.can_log_in(login), "the killed job's login is refused")
    seen = ops.until(job)
    assert seen["state"] == "killed"
    shop.assert_dead(seen, login)
    assert ops.until(waiting)["state"] == "succeeded"
