"""Cancel, kill, revoke: who may, that the job's workflow is told, and that a kill works without a workflow."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from datetime import UTC, datetime, timedelta

import pytest

from console.auth.authorization import Caller
from console.presentation.event_text import event_sentence
from console.services.decide_request import withdraw_unsigned
from console.services.stop_job import stop_job
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import Forbidden
from justenough.domain.ledger.events import EventType, build_event
from tests.console.served_console import Served
from tests.support.claims import claim_job

STOPPERS = "break-glass, chiefs, ops, security, support-leads"
UNKNOWN = "j-dev-01arz3ndektsv4rrffq69g5fav"


@pytest.mark.parametrize("who", ["ops", "lead", "chief", "oncall"])
async def test_a_jobs_launcher_approvers_and_on_call_may_kill_it(served: Served, who: str) -> None:
    job = (await served.launch())["id"]
    answer = await served.post(f"/jobs/{job}/kill", who)
    assert (answer.status_code, answer.json()) == (202, {"id": job, "state": "pending", "note": None})
    assert await served.signals(job) == [("kill", [])]


@pytest.mark.parametrize("who", ["ops", "lead", "oncall"])
async def test_whoever_may_stop_a_job_may_withdraw_its_approvals(served: Served, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)
    request = await served.launch_and_request()
    served.record_answer(request, "lead")
    withdrawal = served.people[who].decision(request, {"decision": "withdraw"})
    answer = await served.post(f"/requests/{request['id']}/decisions", who, withdrawal, headers={"If-Match": f'"{request["digest"]}"'})
    assert answer.status_code == 202, answer.text
    assert [name for name, _ in await served.signals(request["job_id"])] == ["decide"]


async def test_another_launchers_job_is_not_shown_and_cannot_be_stopped(served: Served) -> None:
    request = await served.launch_and_request()
    job, credential = request["job_id"], served.issue(request["job_id"])
    withdrawal = served.people["ops2"].decision(request, {"decision": "withdraw"})
    asked = {
        f"/jobs/{job}/cancel": None,
        f"/jobs/{job}/kill": None,
        f"/credentials/{credential}/revoke": None,
        f"/requests/{request['id']}/decisions": withdrawal,
        f"/requests/{request['id']}/withdraw": {"reason": "x"},
    }
    for path, body in asked.items():
        answer = await served.post(path, "ops2", body, headers={"If-Match": f'"{request["digest"]}"'})
        assert answer.status_code == 404, path
        # The answer is the same as for a job that never existed.
        unknown = await served.post(path.replace(job[2:], UNKNOWN[2:]), "ops2", body, headers={"If-Match": f'"{request["digest"]}"'})
        assert unknown.json()["detail"].split()[:4] == answer.json()["detail"].split()[:4]
    assert await served.signals(job) == []


@pytest.mark.parametrize("kill", [False, True])
async def test_a_launcher_who_may_read_every_job_cannot_stop_those_of_others(served: Served, *, kill: bool) -> None:
    job, other = (await served.launch())["id"], served.people["ops2"].id
    reader = Person(id=other, name="ops2", groups=frozenset({"ops", "auditors"}))
    caller = Caller(reader, served.console.deps.config.current().tiers, expires=0.0)
    with pytest.raises(Forbidden, match="only the job's launcher may do this"):
        await stop_job(served.console, job, caller, kill=kill)
    assert await served.signals(job) == []


async def test_a_cancel_reaches_the_workflow(served: Served) -> None:
    job = (await served.launch())["id"]
    answer = await served.post(f"/jobs/{job}/cancel", "ops")
    assert answer.status_code == 202
    history = await served.temporal.get_workflow_handle(job).fetch_history()
    assert any(item.HasField("workflow_execution_cancel_requested_event_attributes") for item in history.events)


@pytest.mark.parametrize("what", ["cancel", "kill"])
async def test_the_reason_for_a_cancel_or_kill_is_optional_and_recorded(served: Served, what: str) -> None:
    job, silent = [(await served.launch())["id"] for _ in range(2)]
    assert (await served.post(f"/jobs/{job}/{what}", "ops", {"reason": "  it loops "})).status_code == 202
    assert (await served.post(f"/jobs/{silent}/{what}", "ops", {})).status_code == 202
    assert (await served.post(f"/jobs/{silent}/{what}", "ops", {"reason": "x" * 1001})).status_code == 422
    kept = [served.store.ledger.entries(job=one, types=[EventType.STOP_REQUESTED]).items[0].data for one in (job, silent)]
    assert [entry.get("reason", "none") for entry in kept] == ["it loops", "none"]
    assert event_sentence("stop.requested", kept[0]) == f"ops requested to {what} the job: it loops"


@pytest.mark.parametrize("what", ["cancel", "kill"])
async def test_a_person_who_may_not_stop_jobs_is_told_which_groups_may(served: Served, what: str) -> None:
    job = (await served.launch())["id"]
    for who in ("auditor", "nobody"):
        answer = await served.post(f"/jobs/{job}/{what}", who)
        assert (answer.status_code, answer.json()["detail"]) == (403, f"needs one of the groups: {STOPPERS}")
    assert await served.signals(job) == []


async def test_withdrawing_without_a_signature_needs_an_existing_approval_and_a_reason(served: Served) -> None:
    request = await served.launch_and_request()
    path = f"/requests/{request['id']}/withdraw"
    refused = await served.post(path, "auditor", {"reason": "x"})
    assert (refused.status_code, refused.json()["detail"]) == (403, f"needs one of the groups: {STOPPERS}")
    early = await served.post(path, "chief", {"reason": "x"})
    assert (early.status_code, early.json()["detail"]) == (409, "the request is pending and has no approval of yours to withdraw")
    served.record_answer(request, "lead")
    for reason in ("", " ", "\x00", "x" * 1001):
        assert (await served.post(path, "chief", {"reason": reason})).status_code == 422
    answer = await served.post(path, "chief", {"reason": "a fake"})
    assert (answer.status_code, answer.json()["state"]) == (200, "withdrawn")
    again = await served.post(path, "chief", {"reason": "a fake"})
    assert (again.status_code, again.json()["detail"]) == (409, "the request is withdrawn and has no approval to withdraw")
    # No signal: a workflow counts nothing that is not signed.
    assert await served.signals(request["job_id"]) == []


async def test_an_approval_withdrawn_without_a_signature_no_longer_counts(served: Served) -> None:
    request = await served.launch_and_request()
    served.record_answer(request, "lead", verdict="pending")
    answer = await served.post(f"/requests/{request['id']}/withdraw", "lead", {"reason": "a fake"})
    assert (answer.status_code, answer.json()["state"]) == (200, "pending")
    (vote,) = answer.json()["approvals"]
    assert vote["withdrawn_at"]


async def test_an_approval_that_is_withdrawn_while_the_last_one_is_counted_does_not_count(served: Served) -> None:
    request = await served.launch_and_request(quorum=2)
    served.record_answer(request, "lead", verdict="pending")
    console, person = served.console, await served.console.token_verifier.person(served.people["lead"].id)
    assert person is not None

    def now() -> datetime:
        # After the withdrawal has read the request, and before it is recorded.
        served.record_answer(request, "chief")
        return datetime.now(UTC)

    racing = dataclasses.replace(console, deps=dataclasses.replace(console.deps, now=now))
    caller = Caller(person, console.deps.config.current().tiers, expires=0.0)
    view = await asyncio.to_thread(withdraw_unsigned, racing, caller, request["id"], "a fake")
    assert view.state == "withdrawn"
    # The session looks at the request when it reads that somebody wants the approval withdrawn.
    kinds = [entry.type for entry in served.store.ledger.entries(job=request["job_id"]).items if "withdra" in entry.type]
    assert kinds == ["approval.withdrawn", "approval.withdrawn", "withdrawal.requested"]


@pytest.mark.parametrize("what", ["cancel", "kill"])
async def test_an_ended_or_unknown_job_cannot_be_stopped(served: Served, what: str) -> None:
    assert (await served.post(f"/jobs/{UNKNOWN}/{what}", "ops")).status_code == 404
    job = (await served.launch())["id"]
    served.end(job)
    answer = await served.post(f"/jobs/{job}/{what}", "ops")
    assert (answer.status_code, answer.json()["detail"]) == (409, "the job has already ended: succeeded")


async def test_a_kill_without_a_workflow_ends_issuing_for_the_job_and_starts_a_sweep(served: Served) -> None:
    job = (await served.launch())["id"]
    handle = served.temporal.get_workflow_handle(job)
    await handle.terminate()
    answer = await served.post(f"/jobs/{job}/kill", "ops")
    assert answer.status_code == 202
    assert answer.json()["note"] == (
        "its workflow is gone; no more credentials are issued to it, and a sweep was started that revokes its credentials"
    )
    assert claim_job(served.store, job, run="late", owner="a worker that slept", now=datetime.now(UTC)) is False
    for swept in await workflows_of(served, "je-dev-sweep-", status="Running"):
        await served.temporal.get_workflow_handle(swept).terminate()


async def test_a_credential_is_revoked_through_its_job(served: Served) -> None:
    job = (await served.launch())["id"]
    credential = served.issue(job)
    revoking = asyncio.create_task(served.post(f"/credentials/{credential}/revoke", "ops"))
    while not (signals := await served.signals(job)):
        assert not revoking.done()
    assert signals == [("revoke_credential", [credential])]
    now = datetime.now(UTC)
    served.store.ledger.append(
        [
            build_event(
                EventType.CREDENTIAL_REVOKED,
                job,
                at=now,
                about=credential,
                credential=credential,
                by="person",
                why="its revocation was requested",
            ),
            build_event(
                EventType.CREDENTIAL_CONFIRMED, job, at=now, about=credential, credential=credential, how="lease and accessor are gone"
            ),
        ]
    )
    answer = await revoking
    assert (answer.status_code, answer.json()["state"]) == (200, "confirmed")
    again = await served.post(f"/credentials/{credential}/revoke", "security")
    assert (again.status_code, again.json()["state"]) == (200, "confirmed")
    assert len(await served.signals(job)) == 1


async def test_a_revocation_that_is_not_confirmed_in_time_is_answered_with_202(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.services.credentials.CONFIRM_TIMEOUT_S", 0.05)
    credential = served.issue((await served.launch())["id"])
    answer = await served.post(f"/credentials/{credential}/revoke", "lead")
    assert (answer.status_code, answer.json()["state"]) == (202, "issued")


async def test_a_revocation_that_fails_is_answered_with_the_reason_as_soon_as_it_is_known(served: Served) -> None:
    job = (await served.launch())["id"]
    credential = served.issue(job)
    revoking = asyncio.create_task(served.post(f"/credentials/{credential}/revoke", "ops"))
    while not await served.signals(job):
        assert not revoking.done()
    failed = {"credential": credential, "by": "person", "failures": ["target shop: away"], "attempt": 1}
    served.store.ledger.append([build_event(EventType.CREDENTIAL_OVERDUE, job, at=datetime.now(UTC), about=f"{credential}/1", **failed)])
    answer = await revoking
    assert (answer.status_code, answer.json()["state"], answer.json()["why"]) == (202, "overdue", "target shop: away")
    now = datetime.now(UTC)
    served.store.ledger.append(
        [build_event(EventType.CREDENTIAL_CONFIRMED, job, at=now, about=credential, credential=credential, how="it is gone")]
    )


async def test_a_person_who_may_only_read_cannot_revoke(served: Served) -> None:
    credential = served.issue((await served.launch())["id"])
    answer = await served.post(f"/credentials/{credential}/revoke", "auditor")
    assert (answer.status_code, answer.json()["detail"]) == (403, f"needs one of the groups: {STOPPERS}")
    assert (await served.post("/credentials/c-dev-01arz3ndektsv4rrffq69g5fav-1/revoke", "ops")).status_code == 404


async def workflows_of(served: Served, prefix: str, *, status: str) -> list[str]:
    """Return the ids of the workflows that have this prefix and status, once Temporal lists any: its lists lag behind."""
    while not (
        found := [each.id async for each in served.temporal.list_workflows(f"ExecutionStatus = '{status}'") if each.id.startswith(prefix)]
    ):
        pass
    return found


async def test_sweeps_and_proofs_run_as_workflows_with_ids_that_nobody_can_guess(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    # No worker runs here: the caller is told that nobody answers, instead of waiting forever.
    monkeypatch.setattr("console.temporal.client.REPORT_TIMEOUT", timedelta(seconds=1))
    job = (await served.launch())["id"]
    for path, workflow in (("/sweep", "je-dev-sweep-"), (f"/jobs/{job}/prove", f"je-dev-prove-{job}-")):
        answer = await served.post(path, "auditor")
        assert answer.status_code == 503, answer.text
        assert "no worker answered" in answer.json()["detail"]
        for started in await workflows_of(served, workflow, status="TimedOut"):
            # The id is random: somebody who could guess it could start the workflow first.
            assert re.fullmatch("[0-9a-f]{32}", started.removeprefix(workflow))
    assert (await served.post("/sweep", "nobody")).status_code == 403
    assert (await served.post(f"/jobs/{UNKNOWN}/prove", "auditor")).status_code == 404
    assert (await served.post(f"/jobs/{job}/prove", "ops2")).status_code == 404
