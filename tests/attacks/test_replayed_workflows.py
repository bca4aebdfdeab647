"""A job's workflow is started anew with its own input, by somebody who can write to Temporal, without what people asked of the first one."""

from __future__ import annotations

import pytest

from tests.attacks.intruder import Intruder, entry_data, grant, session_call
from tests.support.people import Human
from tests.support.shop import Shop, access, spec

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("how, outcome", [("cancel", "cancelled"), ("kill", "killed")])
def test_a_job_that_people_stopped_is_issued_nothing_if_its_workflow_is_started_anew(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder, how: str, outcome: str
) -> None:
    order = ops.order(spec("true", access(), access(action="write", optional=True, deliver={"env": {"WRITER": "username"}})))
    launched = ops.api.post("jobs", json=order)
    assert launched.is_success, launched.text
    job = launched.json()["id"]
    ops.until(job, "awaiting_approval")
    # Nobody can answer the stop before the workflow is started anew.
    intruder.terminate_job(job)
    ops.api.post(f"jobs/{job}/{how}")
    assert entry_data(auditor, job, "stop.requested")

    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1)))

    assert entry_data(auditor, job, "credential.issued") == []
    assert (answered["outcome"], answered["stopped"]) == (outcome, True), answered
    assert shop.users_of(job) == []
