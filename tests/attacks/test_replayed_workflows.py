"""A stopped job's workflow, started anew with its copied input and approval but without the stop: nothing is issued."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.api.common.v1 import Payloads

from tests.attacks.intruder import Intruder, answer, encrypted_junk, entry_data, session_call
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

STOPS = pytest.mark.parametrize("how, state", [("cancel", "cancelled"), ("kill", "killed")], ids=["cancel", "kill"])


def stop(ops: Human, auditor: Human, job: str, how: str) -> None:
    """Stop a job and wait until the stop is in the ledger."""
    assert ops.api.post(f"jobs/{job}/{how}").status_code in ACCEPTED_STATUSES
    assert until(lambda: entry_data(auditor, job, "stop.requested"), "the stop is recorded")[0]["how"] == how


def assert_nothing_issued(auditor: Human, shop: Shop, job: str) -> None:
    assert entry_data(auditor, job, "credential.issued") == []
    assert entry_data(auditor, job, "job.started") == []
    assert shop.users_of(job) == []
    assert shop.tokens_of(job) == []


def park(intruder: Intruder, job: str) -> None:
    """Replace a job's workflow with one whose input nobody can decrypt: it stays open, and no signal reaches the job."""
    intruder.replace_job(job, Payloads(payloads=[encrypted_junk()]))


@STOPS
def test_a_stopped_job_that_is_started_anew_with_its_copied_approval_gets_nothing(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness, how: str, state: str
) -> None:
    job = ops.launch(spec(witness.hand_over, access(action="write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    payloads = intruder.copy_input(job)
    park(intruder, job)
    assert lead.answer(request).status_code in ACCEPTED_STATUSES
    (approval,) = until(lambda: intruder.copy_signals(job, "decide"), "the approval is in the workflow's history")
    stop(ops, auditor, job, how)
    intruder.replace_job(job, payloads)
    intruder.send_signal(job, "decide", approval)
    assert ops.until(job)["state"] == state
    # The approval counted, so only the recorded stop kept the job from its access.
    assert [entry["verdict"] for entry in entry_data(auditor, job, "approval.decided")] == ["approved"]
    assert_nothing_issued(auditor, shop, job)


@STOPS
def test_a_session_of_a_stopped_job_without_its_workflow_gets_nothing(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness, how: str, state: str
) -> None:
    order = ops.order(spec(witness.hand_over, access(action="write")))
    job = ops.api.post("jobs", json=order).raise_for_status().json()["id"]
    approval = answer(lead.decision(ops.until(job, "awaiting_approval")["requests"][0]))
    park(intruder, job)
    stop(ops, auditor, job, how)
    item: dict[str, Any] = {"id": f"r{job[1:]}-1", "number": 1, "answers": [approval]}
    (answered,) = intruder.run_workflow("Job", job, session_call(order, item))
    assert answered["outcome"] == state, answered
    assert_nothing_issued(auditor, shop, job)
