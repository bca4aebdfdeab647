"""`run_session` scheduled by foreign workflows: it issues only what policy allows automatically, and each attempt is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.ids import new_job_id
from tests.attacks.intruder import (
    Call,
    Intruder,
    answer,
    change_group,
    deny_job,
    entry_data,
    grant,
    job_input,
    ledger_entries,
    session_call,
)
from tests.support.people import Human
from tests.support.shop import Shop, Witness, access, spec

pytestmark = pytest.mark.servers

READ, WRITE = access(), access(action="write")


def assert_no_credential(auditor: Human, shop: Shop, job: str) -> None:
    """Fail if a job has or ever had a credential."""
    assert shop.users_of(job) == []
    assert shop.tokens_of(job) == []
    assert entry_data(auditor, job, "credential.issued") == []


def assert_refused(auditor: Human, shop: Shop, job: str, result: Any, why: str) -> None:
    """Fail unless the session refused, recorded that in the ledger, and issued nothing."""
    assert result["outcome"] == "failed"
    assert why in result["reason"]
    assert any(why in entry["why"] for entry in entry_data(auditor, job, "job.refused"))
    assert_no_credential(auditor, shop, job)


def test_a_foreign_workflow_gets_nothing_for_a_genuine_order(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = ops.order(spec("true", READ))
    job = order["id"]
    (answered,) = intruder.run_workflow("Stranger", f"stranger-{job}", session_call(order, grant(job, 1)))
    assert_refused(auditor, shop, job, answered, "not the workflow of this job")
    assert entry_data(auditor, job, "job.refused")[0]["workflow"] == f"stranger-{job}"


def test_the_right_type_under_another_id_gets_nothing(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = ops.order(spec("true", READ))
    (answered,) = intruder.run_workflow("Job", f"false-{order['id']}", session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, "not the workflow of this job")


def test_the_right_id_under_another_type_gets_nothing(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = ops.order(spec("true", READ))
    (answered,) = intruder.run_workflow("Stranger", order["id"], session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, "not the workflow of this job")


def test_an_order_with_a_missing_forged_or_exchanged_parent_gets_nothing(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    parent, another = ops.launch(spec("true", READ)), ops.launch(spec("true", READ))
    for said, signed, why in ((None, parent, "another parent"), (another, parent, "another parent"), (parent, None, "another parent")):
        order = ops.order(spec("true", READ), parent=signed)
        (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1), parent=said))
        assert_refused(auditor, shop, order["id"], answered, why)
    unknown = new_job_id("dev", now=datetime.now(UTC))
    order = ops.order(spec("true", READ), parent=unknown)
    (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, f"there is no job {unknown}")


def test_a_child_with_more_access_than_its_parent_gets_nothing_without_the_console_either(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    parent = ops.launch(spec("true", READ))
    for wanted, path in ((WRITE, "access[0].action"), (access(ttl="10m"), "access[0].ttl"), (access("customers-db"), "access[0].resource")):
        order = ops.order(spec("true", wanted), parent=parent)
        (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1)))
        assert_refused(auditor, shop, order["id"], answered, f"it requests more than its parent job has: {path}")


@dataclass(frozen=True)
class Desk:
    """The people who can sign, and two pending requests."""

    ops: Human
    lead: Human
    security: Human
    request: dict[str, Any]
    other: dict[str, Any]

    def invent_answer(self, **changes: Any) -> dict[str, Any]:
        return answer({**self.lead.decision(self.request), "signature": "vault:v1:" + "A" * 86 + "=="}, **changes)


Answers = Callable[[Desk], list[dict[str, Any]]]
APPROVALS: dict[str, Answers] = {
    "invented ones": lambda at: [at.invent_answer()],
    "a pile of invented ones": lambda at: [at.invent_answer(person=f"p{number}") for number in range(60)],
    "the launcher's": lambda at: [answer(at.ops.decision(at.request))],
    "another approver's key": lambda at: [answer(at.security.decision(at.request, person=at.lead.id))],
    "those of another job": lambda at: [answer(at.lead.decision(at.other))],
    "those of another job under its name": lambda at: [answer(at.lead.decision(at.other, job=at.request["job_id"]))],
    "a denial that claims to approve": lambda at: [answer(at.lead.decision(at.request, "deny"), decision="approve")],
    "a denial and an approval": lambda at: [answer(at.lead.decision(at.request, "deny")), answer(at.security.decision(at.request))],
}


@pytest.fixture(scope="module")
def elsewhere(ops: Human) -> Iterator[dict[str, Any]]:
    """Return a genuine job's request, for the same access as the false jobs."""
    job = ops.launch(spec("true", WRITE))
    yield ops.until(job, "awaiting_approval")["requests"][0]
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202


@pytest.mark.parametrize("answers", APPROVALS.values(), ids=APPROVALS)
def test_a_false_worker_gets_nothing_that_needs_a_person(
    ops: Human, lead: Human, security: Human, auditor: Human, shop: Shop, intruder: Intruder, elsewhere: dict[str, Any], answers: Answers
) -> None:
    order = ops.order(spec("true", WRITE))
    job = order["id"]
    # Anybody can compute the digest; here it comes from the installation itself, for the same spec.
    desk = Desk(ops, lead, security, {**elsewhere, "id": f"r{job[1:]}-1", "job_id": job}, elsewhere)
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1, *answers(desk))))
    assert answered["outcome"] == "denied"
    assert "valid approvals do not reach the quorum" in answered["reason"]
    assert_no_credential(auditor, shop, job)
    assert {entry["outcome"] for entry in entry_data(auditor, job, "access.decided")} == {"needs_approval"}
    assert entry_data(auditor, job, "approval.decided") == []
    # A sweep may already have found that the false workflow is closed.
    assert auditor.job(job)["requests"][0]["state"] in {"pending", "withdrawn"}


def test_each_forged_approval_is_in_the_ledger(ops: Human, lead: Human, security: Human, auditor: Human, intruder: Intruder) -> None:
    order = ops.order(spec("true", WRITE))
    request = {"id": f"r{order['id'][1:]}-1", "job_id": order["id"], "digest": "sha256:" + "0" * 64, "ttl": 300, "action": "write"}
    forged = [answer(lead.decision(request)), answer(security.decision(request, person=lead.id))]
    intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1, *forged)))
    rejected = entry_data(auditor, order["id"], "approval.rejected")
    assert [(entry["request"], entry["person"]) for entry in rejected] == [(request["id"], lead.id)] * 2
    assert {entry["why"] for entry in rejected} == {"the decision is for something other than what would run and be issued now"}


def run_unswept(auditor: Human, run_job: Callable[[], tuple[str, Any]]) -> str:
    """Call `run_job`, which runs a false job and returns its id and result, until one succeeds; return its id.

    Sweeps come every few seconds. A sweep considers a job with a foreign workflow lost and ends its access, so an attempt may fail.
    """

    def was_swept(job: str) -> bool:
        return any(entry["by"] == "sweep" for entry in entry_data(auditor, job, "revocation.started"))

    while True:
        job, answered = run_job()
        if answered["outcome"] == "succeeded":
            assert answered["clean"], answered
            return job
        assert was_swept(job), answered


def test_a_false_worker_gets_only_what_policy_allows_and_all_of_it_is_recorded(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness
) -> None:
    def run_job() -> tuple[str, Any]:
        order = ops.order(spec(witness.hand_over, READ, access(action="write", optional=True, deliver={})))
        job = order["id"]
        return job, *intruder.run_workflow("Job", job, session_call(order, grant(job, 1), grant(job, 2)))

    job = run_unswept(auditor, run_job)
    login = witness.login(of=job)
    seen = auditor.job(job)
    assert [(item["resource"], item["action"]) for item in seen["credentials"]] == [("orders-db", "read")]
    assert [item["state"] for item in seen["requests"]] == ["allowed", "pending"]
    steps = [entry["type"] for entry in ledger_entries(auditor, job)]
    assert steps.index("job.submitted") < steps.index("access.decided") < steps.index("credential.issued")
    shop.assert_dead(seen, login)


def test_a_genuine_approval_is_recorded_before_anything_is_issued(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness
) -> None:
    def run_job() -> tuple[str, Any]:
        job = ops.launch(spec(witness.hand_over, WRITE))
        request = ops.until(job, "awaiting_approval")["requests"][0]
        order = job_input_of(auditor, job)
        call = Call("run_session", {"order": order, "granted": [grant(job, 1, answer(lead.decision(request, ttl=60)))]})
        # Replace the job's own run in one step: a sweep that saw no workflow would end the job.
        return job, *intruder.run_workflow("Job", job, call)

    job = run_unswept(auditor, run_job)
    login = witness.login(of=job)
    steps = [entry["type"] for entry in ledger_entries(auditor, job)]
    assert steps.index("approval.decided") < steps.index("credential.issued")
    shop.assert_dead(auditor.job(job), login)


def job_input_of(auditor: Human, job: str) -> dict[str, Any]:
    """Return the argument of a job's workflow, built from the ledger."""
    (data,) = entry_data(auditor, job, "job.submitted")
    return {"job": job, "spec": data["spec"], "params": data["params"], "bundle": data["bundle"], "order": data["order"]}


@pytest.mark.parametrize("numbers", [[0], [-1], [2], [10**6], [1, 1], [1, 2]], ids=str)
def test_requests_outside_of_the_order_are_rejected(ops: Human, auditor: Human, shop: Shop, intruder: Intruder, numbers: list[int]) -> None:
    order = ops.order(spec("true", READ))
    (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, *(grant(order["id"], number) for number in numbers)))
    assert_refused(auditor, shop, order["id"], answered, "requests that are not start requests of the order")


def test_an_order_cannot_be_started_without_its_unapproved_request(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = ops.order(spec("true", READ, access("refunds-db", "write", deliver={})))
    (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, "omits requests")


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "another spec": ({"spec": spec("cat /etc/passwd", READ, params={"ticket": "1"})}, "another spec"),
    "other params": ({"params": {"ticket": "2"}}, "other params"),
    "another bundle": ({"bundle": "sha256:" + "0" * 64}, "another bundle"),
    "another job": ({"job": new_job_id("dev", now=datetime.now(UTC))}, "another job"),
    "no job": ({"job": "../je-job-x"}, "id is not valid"),
}


@pytest.mark.parametrize("changes, why", CHANGED.values(), ids=CHANGED)
def test_an_order_for_something_else_is_refused(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder, changes: dict[str, Any], why: str
) -> None:
    order = ops.order(spec("true", READ, params={"ticket": "1"}))
    job = changes.get("job", order["id"])
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(order["id"], 1), **changes))
    assert why in answered["reason"]
    # Refusals that name no job are in the chain for events without a job.
    assert any(why in entry["why"] for entry in entry_data(auditor, job if job.startswith("j-") else "-", "job.refused"))
    assert_no_credential(auditor, shop, order["id"])


def test_an_order_of_a_person_who_may_not_launch_is_rejected(lead: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = lead.order(spec("true", READ))
    (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, "none of the groups that may launch")


def test_an_order_in_another_persons_name_is_rejected(ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = lead.order(spec("true", READ), person=ops.id)
    (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, "does not match")


def test_a_person_who_may_no_longer_launch_gets_nothing_for_an_older_order(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    order = ops.order(spec("true", READ))
    with change_group(shop, "ops", remove=[ops.id]):
        (answered,) = intruder.run_workflow("Job", order["id"], session_call(order, grant(order["id"], 1)))
    assert_refused(auditor, shop, order["id"], answered, "none of the groups that may launch")


GARBAGE: dict[str, Any] = {
    "null": None,
    "text": "run",
    "empty": {},
    "list": [1],
    "order of no kind": {"order": 5},
    "granted of no kind": None,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_malformed_order_is_recorded(ops: Human, auditor: Human, shop: Shop, intruder: Intruder, what: str) -> None:
    order = ops.order(spec("true", READ))
    argument = GARBAGE[what] if what != "granted of no kind" else {"order": job_input(order), "granted": [{"number": "x", "answers": 7}]}
    (answered,) = intruder.run_workflow("Job", order["id"], Call("run_session", argument))
    assert_refused(auditor, shop, order["id"], answered, "not an order")


def test_an_order_runs_once(ops: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness) -> None:
    order = ops.order(spec(witness.hand_over, READ))
    job = ops.api.post("jobs", json=order).raise_for_status().json()["id"]
    login = witness.login()
    seen = ops.until(job)
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1)))
    assert "already run or ended" in answered["reason"]
    assert any("already run or ended" in entry["why"] for entry in entry_data(auditor, job, "job.refused"))
    assert len(entry_data(auditor, job, "credential.issued")) == 1
    shop.assert_dead(seen, login)


def test_a_denied_job_cannot_be_started_again(
    ops: Human, lead: Human, security: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    order, _, too_late = deny_job(ops, lead, security)
    job = order["id"]
    # Even a session that was starting when the job ended could not go on: nobody has the right to issue.
    assert intruder.write_store("UPDATE claims SET renewed_at = renewed_at WHERE job = ? AND closed_at IS NOT NULL", job) == 1
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1, too_late)))
    assert_refused(auditor, shop, job, answered, "already run or ended")


def test_a_job_cancelled_while_it_waited_cannot_be_started_again(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    order = ops.order(spec("true", WRITE))
    job = ops.api.post("jobs", json=order).raise_for_status().json()["id"]
    request = ops.until(job, "awaiting_approval")["requests"][0]
    assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    assert ops.until(job)["state"] == "cancelled"
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1, answer(lead.decision(request)))))
    assert_refused(auditor, shop, job, answered, "already run or ended")


def test_the_workflow_itself_refuses_a_forged_order(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    order = ops.order(spec("true", READ))
    intruder.start_job(job_input(order, spec=spec("true", WRITE)))
    assert [entry["why"] for entry in entry_data(auditor, order["id"], "job.refused")] == ["the order is for another spec"]
    assert digest_of(order["spec"]) == order["statement"]["spec_digest"]
    assert_no_credential(auditor, shop, order["id"])
