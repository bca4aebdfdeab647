"""How the worker counts answers, on real servers: withdrawn ones stay withdrawn, and what a workflow says about earlier answers is not
believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.job_activities import JobActivities
from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.adapters.vault import Vault
from justenough.adapters.vault import client as vault_client
from justenough.domain.approvals.ladder import GrantTerms, Ladder
from justenough.domain.approvals.statements import DecisionStatement, to_signable
from justenough.domain.approvals.verification import NOT_WAITING
from justenough.domain.contracts.workflow_messages import AnswersInput, AnswersResult, ClimbInput
from justenough.domain.core.ids import new_job_id, request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.count_answers import AnswerCounter, count_withdrawal
from justenough.services.evaluate_request import evaluate_grant
from justenough.services.job_history import approval_withdrawers, read_job_history
from tests.activities.vault_shop import SPEC, Desk, Shop, Someone, copy_config, open_desk
from tests.adapters.store.event_samples import job_start

pytestmark = pytest.mark.servers

WRITE: dict[str, Any] = {**SPEC, "access": [{"resource": "orders-db", "action": "write", "ttl": "10m", "reason": "Mend the order"}]}
BOUND: dict[str, Any] = {
    **SPEC,
    "access": [
        {
            "resource": "refunds-db",
            "action": "write",
            "ttl": "10m",
            "reason": "Refund it",
            "tools": {"refund-order": {"calls": 1, "other_arguments": "any"}},
        }
    ],
}
RESTRICTED: dict[str, Any] = {**SPEC, "access": [{"resource": "customers-db", "action": "read", "ttl": "5m", "reason": "Look it up"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration where each tier wants two people."""
    made = copy_config(tmp_path)
    approvals = made / "approvals.yaml"
    approvals.write_text(approvals.read_text().replace("quorum: 1", "quorum: 2"))
    return made


@pytest.fixture
def at(shop: Shop, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(vault_client, "CACHE_TTL_S", 0)
    with open_desk(shop, tmp_path, folder=folder) as made:
        yield made


class WaitingJob:
    """A job whose write waits for two people, and what its workflow, or somebody in its place, has counted."""

    def __init__(self, at: Desk, by: Someone | None = None, *, parent: str | None = None, job_spec: Mapping[str, Any] = WRITE) -> None:
        self.at, self.job = at, new_job_id("dev", now=at.deps.now())
        self.request = request_id(self.job, 1)
        environment = ActivityEnvironment()
        environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=self.job)
        said = {"parent": parent} if parent else {}
        order = (by or at.shop.sign_in("ops")).order(self.job, said, now=at.deps.now(), spec=dict(job_spec))
        decided = environment.run(JobActivities(at.deps).decide_requests, order)
        assert decided.refused is None
        ladder = decided.requests[0].ladder
        assert ladder is not None
        self.ladder: Ladder = ladder
        self.verdict, self.number = "pending", 0

    def answer(self, who: Someone, decision: str = "approve", *, ladder: Ladder | None = None, **limits: Any) -> str:
        """Return the request's verdict once somebody's answer was taken; `ladder`: instead of what has been counted."""
        before = ladder or self.ladder
        self.number += 1
        which = "approved" if self.verdict == "approved" else "ladders"
        asked = {"ladders": {}, which: {self.request: before}}
        received = (self.sign_decision(who, decision, **limits).model_dump(mode="json"),)
        counting = AnswerCounter(self.at.deps, AnswersInput(job=self.job, received=received, number=self.number, **asked))
        counting.count_signal(received[0], number=self.number)
        self.at.deps.store.ledger.append(counting.events)
        return self._keep(counting.result())

    def escalate(self) -> None:
        self.at.clock.ahead += self.ladder.respond_by - self.at.deps.now()
        environment = ActivityEnvironment()
        environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=self.job)
        climbed = environment.run(JobActivities(self.at.deps).climb, ClimbInput(job=self.job, ladder=self.ladder)).ladder
        assert climbed is not None
        self.ladder = climbed

    def state(self) -> RequestState:
        found = self.at.deps.store.requests.get(self.request)
        assert found is not None
        return found.state

    def rejections(self) -> list[str]:
        return [entry.data["why"] for entry in self.at.deps.store.ledger.entries(job=self.job, types=[EventType.APPROVAL_REJECTED]).items]

    def _keep(self, result: AnswersResult) -> str:
        self.ladder = result.ladders.get(self.request, self.ladder)
        self.verdict = result.verdicts.get(self.request, self.verdict)
        return self.verdict

    def sign_decision(self, who: Someone, decision: str = "approve", **limits: Any) -> Any:
        now, ladder = self.at.deps.now().replace(microsecond=0), self.ladder
        about: dict[str, Any] = {"job": self.job, "request": self.request, "digest": ladder.digest, "ttl": ladder.ttl}
        about |= {"action": ladder.action, "reason": "it is needed", "person": who.id, **limits}
        times: dict[str, Any] = {"issued_at": now, "expires_at": now + timedelta(hours=1)}
        return who.sign(to_signable(DecisionStatement.model_validate({**about, **times, "decision": decision})))


def test_an_approver_who_withdrew_can_still_withdraw_the_approval_that_others_completed(at: Desk) -> None:
    first, second, third = (at.shop.newcomer(f"part-{number}", "support-leads") for number in range(3))
    job = WaitingJob(at)
    assert [job.answer(first), job.answer(first, "withdraw"), job.answer(second), job.answer(third)] == [
        "pending",
        "pending",
        "pending",
        "approved",
    ]
    assert job.state() is RequestState.APPROVED

    assert job.answer(first, "withdraw") == "withdrawn"

    assert job.state() is RequestState.WITHDRAWN
    assert read_job_history(at.deps.store.ledger, job.job).settled == {job.request: "withdrawn"}
    assert approval_withdrawers(at.deps.store.ledger, job.request) == (first.name,)


def test_an_approval_that_was_withdrawn_in_the_same_batch_is_withdrawn_in_a_second_attempt_too(at: Desk) -> None:
    """A worker can die after it has recorded a batch and before the workflow learns of it; another one then counts the batch again."""
    first, second = (at.shop.newcomer(f"again-{number}", "support-leads") for number in range(2))
    job = WaitingJob(at)
    job.answer(first)
    received = tuple(job.sign_decision(second, decision).model_dump(mode="json") for decision in ("approve", "withdraw"))
    batch = AnswersInput(job=job.job, received=received, number=2, ladders={job.request: job.ladder})

    verdicts = []
    for _ in range(2):
        counting = AnswerCounter(at.deps, batch)
        for number, raw in enumerate(received, start=2):
            counting.count_signal(raw, number=number)
        at.deps.store.ledger.append(counting.events)
        verdicts.append(counting.result().verdicts[job.request])

    assert verdicts == ["withdrawn", "withdrawn"]
    assert job.state() is RequestState.WITHDRAWN
    assert job.rejections() == []
    # An answer that nobody has counted yet is rejected all the same.
    assert job.answer(at.shop.newcomer("too-late", "support-leads")) == "withdrawn"
    assert job.rejections() == [NOT_WAITING.message]


def test_an_answer_that_was_recorded_counts_as_recorded_in_a_second_attempt_although_its_person_has_another_tier_now(at: Desk) -> None:
    first, second = (at.shop.newcomer(f"moved-{number}", "support-leads") for number in range(2))
    job = WaitingJob(at)
    before = job.ladder
    # Answers contain whole seconds: one that is signed in another second is another answer.
    at.clock.stopped = at.deps.now().replace(microsecond=500_000)
    assert job.answer(first) == "pending"
    at.shop.join(first, "security")

    job.number = 0
    assert job.answer(first, ladder=before) == "pending"

    assert [answer.tier for answer in job.ladder.answers] == [1]
    assert job.answer(second) == "approved"
    assert (job.state(), job.rejections()) == (RequestState.APPROVED, [])


def test_a_withdrawal_that_the_workflow_did_not_learn_of_is_no_rejected_answer_in_a_second_attempt(at: Desk) -> None:
    person = at.shop.newcomer("withdraws-once", "support-leads")
    job = WaitingJob(at)
    job.answer(person)
    before, at.clock.stopped = job.ladder, at.deps.now()

    for _ in range(2):
        assert job.answer(person, "withdraw", ladder=before) == "pending"
        assert job.ladder.answers == ()

    assert job.rejections() == []


def test_an_answer_whose_person_is_no_text_does_not_count(at: Desk) -> None:
    job, person = WaitingJob(at), at.shop.newcomer("no-text", "support-leads")
    raw = job.sign_decision(person).model_dump(mode="json")
    raw["statement"]["person"] = [person.id]
    counting = AnswerCounter(at.deps, AnswersInput(job=job.job, received=(raw,), number=1, ladders={job.request: job.ladder}))
    counting.count_signal(raw, number=1)
    assert [event.type for event in counting.events] == [EventType.APPROVAL_REJECTED]


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_request_waits_for_another_approver_if_one_of_its_approvers_has_left_the_group(at: Desk, *, is_lost: bool) -> None:
    first, second, third = (at.shop.newcomer(f"{'twice' if is_lost else 'once'}-left-{number}", "support-leads") for number in range(3))
    job = WaitingJob(at)
    at.clock.stopped = at.deps.now()
    assert job.answer(first) == "pending"
    at.shop.leave(first, "support-leads")
    before = job.ladder
    assert (job.answer(second), job.state()) == ("pending", RequestState.PENDING)
    if is_lost:
        # The workflow did not learn of the second answer, because its worker died.
        job.number = 1
        assert job.answer(second, ladder=before) == "pending"

    assert (job.answer(third), job.state()) == ("approved", RequestState.APPROVED)

    assert [answer.person for answer in job.ladder.answers] == [second.id, third.id]
    assert job.rejections() == [f"{first.name} is in no group that approves requests"] * 2, "each time that the quorum was reached"
    view = at.deps.store.requests.get(job.request)
    assert view is not None
    assert {item.approver for item in view.counting_approvals} == {second.name, third.name}
    assert job.answer(third, "withdraw") == "withdrawn"


def test_an_approval_of_somebody_who_comes_back_counts_again_and_is_shown_so(at: Desk) -> None:
    first, second, third = (at.shop.newcomer(f"back-{number}", "support-leads") for number in range(3))
    job = WaitingJob(at)

    def shown() -> list[str | None]:
        view = at.deps.store.requests.get(job.request)
        return [item.lapsed for item in view.approvals] if view else []

    job.answer(first)
    at.shop.leave(first, "support-leads")
    assert job.answer(second) == "pending"
    assert shown() == [f"{first.name} is in no group that approves requests", None]
    at.shop.join(first, "support-leads")
    assert (job.answer(third), shown()) == ("approved", [None, None, None])


def test_somebody_who_rises_to_the_tier_to_which_a_request_escalated_can_answer_it_again(at: Desk) -> None:
    first, second = at.shop.newcomer("riser", "support-leads"), at.shop.newcomer("risen", "security")
    job = WaitingJob(at)
    assert job.answer(first) == "pending"
    job.escalate()
    at.shop.join(first, "security")
    assert job.answer(first) == "pending"
    assert job.answer(second) == "approved"
    assert (job.state(), job.rejections()) == (RequestState.APPROVED, [])


def test_an_answer_after_an_escalation_counts_although_the_workflow_did_not_learn_of_the_escalation(at: Desk) -> None:
    """A worker can die after it has recorded the escalation; then the workflow has the answers examined first."""
    early, *chiefs = (at.shop.newcomer(f"late-{number}", group) for number, group in enumerate(("support-leads", "security", "security")))
    job = WaitingJob(at)
    assert job.answer(early) == "pending"
    at.clock.ahead += job.ladder.respond_by - at.deps.now()
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=job.job)
    escalated = environment.run(JobActivities(at.deps).climb, ClimbInput(job=job.job, ladder=job.ladder)).ladder
    assert escalated is not None

    received = tuple(job.sign_decision(who, "approve").model_dump(mode="json") for who in chiefs)
    batch = AnswersInput(job=job.job, received=received, number=2, ladders={job.request: job.ladder})
    # The result of the first attempt gets lost, too.
    for _ in range(2):
        counting = AnswerCounter(at.deps, batch)
        for number, raw in enumerate(received, start=2):
            counting.count_signal(raw, number=number)
        at.deps.store.ledger.append(counting.events)
        ladder, verdict = counting.result().ladders[job.request], counting.result().verdicts[job.request]
        assert (verdict, ladder.current, ladder.respond_by, len(ladder.answers)) == ("approved", 2, escalated.respond_by, 2)

    assert (job.state(), job.rejections()) == (RequestState.APPROVED, [])


def test_a_forged_ladder_cannot_make_a_withdrawn_answer_count(at: Desk) -> None:
    first, second = (at.shop.newcomer(f"word-{number}", "support-leads") for number in range(2))
    job = WaitingJob(at)
    job.answer(first)
    forged = job.ladder
    assert len(forged.answers) == 1
    job.answer(first, "withdraw")

    assert job.answer(second, ladder=forged) == "pending"
    assert job.state() is RequestState.PENDING


def test_a_forged_ladder_cannot_raise_an_answer_to_a_tier_that_its_person_may_not_answer(at: Desk) -> None:
    lead, guard = at.shop.newcomer("lifted-lead", "support-leads"), at.shop.newcomer("lifted-guard", "security")
    job = WaitingJob(at)
    job.answer(lead)
    told = {"request": job.request, "tier": 2, "respond_by": at.deps.now().isoformat(), "quorum": 2}
    at.deps.store.ledger.append([build_event(EventType.APPROVAL_ESCALATED, job.job, at=at.deps.now(), about=f"{job.request}/2", **told)])
    lifted = job.ladder.answers[0].model_copy(update={"tier": 2})
    forged = job.ladder.model_copy(update={"current": 2, "answers": (lifted,)})

    assert job.answer(guard, ladder=forged) == "pending"
    assert job.state() is RequestState.PENDING
    assert job.rejections() == ["the workflow's copy of the request differs from the recorded request"]


@pytest.mark.parametrize(
    "forged",
    [
        {"digest": "sha256:" + "0" * 64},
        {"needed": 0},
        {"current": 0},
        {"current": 3},
        {"ttl": 6000},
        {"ttl": 6},
        {"action": Action.READ},
        {"requester": "somebody-else"},
        {"tools": {}},
    ],
    ids=str,
)
def test_a_forged_ladder_that_differs_from_the_recorded_request_is_rejected(at: Desk, forged: dict[str, Any]) -> None:
    job = WaitingJob(at)
    assert job.answer(at.shop.sign_in("lead"), ladder=job.ladder.model_copy(update=forged)) == "pending"
    assert job.rejections() == ["the workflow's copy of the request differs from the recorded request"]


@pytest.mark.parametrize("is_named", [True, False])
def test_a_workflow_cannot_have_an_answer_counted_for_another_jobs_request(at: Desk, *, is_named: bool) -> None:
    job, other = WaitingJob(at), WaitingJob(at)
    asking = other if is_named else job
    signed = asking.sign_decision(at.shop.sign_in("lead"), "approve").model_dump(mode="json")
    received = AnswersInput(job=job.job, received=(signed,), number=1, ladders={asking.request: other.ladder})
    counting = AnswerCounter(at.deps, received)
    counting.count_signal(signed, number=1)
    assert [(event.type, event.data["why"]) for event in counting.events] == [
        (EventType.APPROVAL_REJECTED, "no such request of this job has been recorded")
    ]


def test_an_answer_that_cannot_be_verified_because_vault_denies_it_is_recorded(at: Desk) -> None:
    job, lead = WaitingJob(at), at.shop.newcomer("unverified", "support-leads")
    vault = Vault(at.deps.settings.vault_addr)
    # Anybody's token, instead of the worker's.
    vault.login_token(Secret(lead.token))
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=job.job)
    answer = job.sign_decision(lead, "approve").model_dump(mode="json")
    received = AnswersInput(job=job.job, ladders={job.request: job.ladder}, received=(answer,), number=1)
    counted = environment.run(JobActivities(replace(at.deps, vault=vault)).take_answers, received)
    vault.close()
    assert counted.verdicts == {job.request: "pending"}
    (rejected,) = at.deps.store.ledger.entries(job=job.job, types=[EventType.APPROVAL_REJECTED]).items
    assert rejected.data["person"] == lead.id
    assert "Vault answered 403" in rejected.data["why"]


def test_an_answer_to_a_request_that_is_not_pending_is_rejected(at: Desk) -> None:
    job = WaitingJob(at)
    signed = job.sign_decision(at.shop.sign_in("lead"), "approve").model_dump(mode="json")
    counting = AnswerCounter(at.deps, AnswersInput(job=job.job, received=(signed,), number=1, ladders={}))
    counting.count_signal(signed, number=1)
    assert [event.data["why"] for event in counting.events] == [NOT_WAITING.message]


@pytest.mark.parametrize(
    "number, tools, why",
    [
        (1, {}, "the approvers' tool bounds have no call in common"),
        (9, None, "no such request of this job has been recorded"),
        (None, None, "no order of this job has been recorded"),
    ],
)
def test_nothing_can_be_granted_without_a_request_or_a_call(at: Desk, number: int | None, tools: dict[str, Any] | None, why: str) -> None:
    job = WaitingJob(at, job_spec=BOUND).job if number else new_job_id("dev", now=at.deps.now())
    evaluated = evaluate_grant(at.deps, job, number or 1, GrantTerms(action=Action.WRITE, ttl=60, tools=tools))
    assert isinstance(evaluated, Rejection)
    assert evaluated.message == why


def test_no_approval_counts_once_the_catalog_issues_something_else(at: Desk, folder: Path) -> None:
    job, approver = WaitingJob(at), at.shop.newcomer("changed", "support-leads")
    file = folder / "catalog.yaml"
    old = re.compile(r'        issue: \{path: "database/creds/orders-write-\{tenant}"}\n        role: .*\n')
    text, edits = old.subn('        issue: {path: "database/creds/refunds-write-{tenant}"}\n', file.read_text())
    assert edits == 1
    file.write_text(text)
    at.deps.config.refresh()

    assert job.answer(approver, ttl=60) == "pending"

    why = "the catalog issues something else for write on orders-db than when the job asked, so no approval counts; launch the job again"
    assert job.rejections() == [why]
    assert job.answer(approver, "deny") == "denied"


@pytest.mark.parametrize("is_approved", [True, False])
def test_a_session_counts_a_withdrawal_that_the_workflow_has_not_counted(at: Desk, *, is_approved: bool) -> None:
    other = WaitingJob(at).job
    job, *people = WaitingJob(at), *(at.shop.newcomer(f"session-{is_approved}-{number}", "support-leads") for number in range(2))
    for person in people[: 2 if is_approved else 1]:
        job.answer(person)
    ledger, withdrawal = at.deps.store.ledger, job.sign_decision(people[0], "withdraw").model_dump(mode="json")

    def count(signed: Any, request: str = job.request, *, by: str = job.job) -> str | None:
        told = {"request": request, "signed": signed, "person": people[0].id, "name": people[0].name}
        about = f"{request}/{len(ledger.ids(job.job, (EventType.WITHDRAWAL_REQUESTED,)))}"
        ledger.append([build_event(EventType.WITHDRAWAL_REQUESTED, job.job, at=at.deps.now(), about=about, **told)])
        return count_withdrawal(at.deps, by, ledger.entries(job=job.job, types=[EventType.WITHDRAWAL_REQUESTED]).items[-1])

    forged = {**withdrawal, "signature": "vault:v1:AAAA"}
    before = job.state()
    assert [count(forged), count(None), count(withdrawal, "r-dev-1"), count(withdrawal, by=other)] == [None] * 4
    assert job.state() is before
    assert count(withdrawal) == (job.request if is_approved else None)
    assert job.state() is (RequestState.WITHDRAWN if is_approved else before)
    # The workflow may have counted the withdrawal meanwhile.
    assert count(withdrawal) == (job.request if is_approved else None)
    assert count(withdrawal, by=other) is None


@pytest.mark.parametrize("is_running", [True, False])
def test_a_request_of_a_job_that_outlives_its_order_can_be_narrowed_if_the_job_runs(at: Desk, *, is_running: bool) -> None:
    first = at.shop.newcomer(f"late-{'running' if is_running else 'waiting'}", "support-leads")
    job = WaitingJob(at)
    if is_running:
        at.deps.store.ledger.append([job_start(job.job, at=at.deps.now())])
    # The orders of these tests are valid for an hour.
    at.clock.ahead = timedelta(hours=2)

    assert job.answer(first, ttl=60) == "pending"

    assert job.rejections() == ([] if is_running else ["the job's order is no longer valid: the statement has expired"])
    assert len(job.ladder.answers) == is_running


def test_a_late_request_of_a_job_with_very_many_decisions_can_be_narrowed(at: Desk) -> None:
    # Each issue in a target that cannot be searched is a decision of its own.
    job, ledger = WaitingJob(at), at.deps.store.ledger
    late = request_id(job.job, 2)
    requested, decided = (
        ledger.entries(job=job.job, types=[kind]).items[0] for kind in (EventType.ACCESS_REQUESTED, EventType.ACCESS_DECIDED)
    )
    told: dict[str, Any] = {"job": job.job, "at": at.deps.now()}
    ledger.append(
        build_event(EventType.ACCESS_DECIDED, **told, about=f"{job.request}/issue-{number}", **decided.data)
        for number in range(MAX_PAGE_SIZE)
    )
    ledger.append([build_event(EventType.ACCESS_REQUESTED, **told, about=late, **requested.data | {"request": late, "number": 2})])
    ledger.append([build_event(EventType.ACCESS_DECIDED, **told, about=f"{late}/runtime", **decided.data | {"request": late})])

    evaluated = evaluate_grant(at.deps, job.job, 2, GrantTerms(action=Action.WRITE, ttl=60))

    assert not isinstance(evaluated, Rejection), evaluated
    assert (evaluated[0].tier, evaluated[1].ttl, evaluated[1].phase) == (job.ladder.needed, 60, "runtime")


def test_the_decision_on_each_narrowed_approval_is_recorded(at: Desk) -> None:
    job, approvers = WaitingJob(at), [at.shop.newcomer(f"narrows-{number}", "support-leads") for number in range(2)]
    assert [job.answer(who, ttl=ttl) for who, ttl in zip(approvers, (120, 60), strict=True)] == ["pending", "approved"]
    decided = [entry.data for entry in at.deps.store.ledger.entries(job=job.job, types=[EventType.ACCESS_DECIDED]).items]
    assert [data["facts"]["ttl"] for data in decided if data["phase"] == "narrowed"] == [120, 60]


def test_break_glass_is_decided_by_policy_and_opens_a_review(at: Desk) -> None:
    at.shop.admin("POST", "identity/group/name/break-glass", {"type": "internal"})
    glass = at.shop.newcomer("glass-breaker", "break-glass")
    job = WaitingJob(at)
    assert job.answer(glass, "break_glass") == "approved"
    entries = at.deps.store.ledger.entries(job=job.job).items
    assert [entry.type for entry in entries][-3:] == [EventType.ACCESS_DECIDED, EventType.APPROVAL_DECIDED, EventType.REVIEW_OPENED]
    assert (entries[-3].data["phase"], entries[-3].data["facts"]["phase"]) == ("narrowed", "start")
    assert (entries[-1].data["tiers"], entries[-1].data["tier_names"]) == ([1], ["owner"])


def test_break_glass_that_policy_forbids_does_not_count(at: Desk) -> None:
    at.shop.admin("POST", "identity/group/name/break-glass", {"type": "internal"})
    job = WaitingJob(at, job_spec=RESTRICTED)
    assert job.answer(at.shop.newcomer("glass-rejected", "break-glass"), "break_glass") == "pending"
    assert job.rejections() == ["policy denies read for 5m by break-glass (no-breaking-glass-for-restricted)"]
    # Nothing of the break-glass stays: the people of the tier can still approve.
    first, second = (at.shop.newcomer(f"after-glass-{number}", "security") for number in range(2))
    assert [job.answer(first), job.answer(second)] == ["pending", "approved"]


def test_break_glass_that_needs_a_higher_tier_does_not_count(at: Desk, tmp_path: Path) -> None:
    at.shop.admin("POST", "identity/group/name/break-glass", {"type": "internal"})
    glass, job = at.shop.newcomer("glass-too-low", "break-glass"), WaitingJob(at)
    policy = '@id("glass-at-tier-2") forbid (principal, action, resource) when { context.break_glass && context.approved_tier < 2 };'
    (tmp_path / "config" / "policies" / "glass.cedar").write_text(policy)
    assert job.answer(glass, "break_glass") == "pending"
    assert job.rejections() == ["write for 10m by break-glass needs tier 2, but the request is at tier 1 until it escalates"]


def test_an_approval_of_an_action_that_the_parent_does_not_have_does_not_count(at: Desk) -> None:
    owner, other = at.shop.newcomer("narrow-owner", "ops"), at.shop.newcomer("narrow-other", "support-leads")
    child = WaitingJob(at, owner, parent=WaitingJob(at, owner).job)
    child.answer(other, action=Action.READ)
    assert child.rejections() == ["the parent job has write on orders-db, but not read"]
    child.answer(other, ttl=60)
    assert [(item.person, item.ttl) for item in child.ladder.answers] == [(other.id, 60)]


def test_nobody_can_decide_on_a_descendant_of_their_own_job_that_another_login_launched(at: Desk) -> None:
    owner, robot = at.shop.newcomer("chain-owner", "ops", "support-leads"), at.shop.newcomer("chain-robot", "ops", "security")
    other, delegate = at.shop.newcomer("chain-other", "support-leads"), at.shop.newcomer("chain-delegate", "support-leads")
    child = WaitingJob(at, robot, parent=WaitingJob(at, owner).job)
    grandchild = WaitingJob(at, robot, parent=child.job)
    why = "people cannot decide on a job that they triggered, or on a descendant of a job that they launched"

    assert (grandchild.answer(owner), grandchild.rejections()) == ("pending", [why])
    assert grandchild.answer(owner, "deny") == "pending"
    # They may withdraw it, as any approver may.
    assert [grandchild.answer(other), grandchild.answer(delegate), grandchild.answer(owner, "withdraw")] == [
        "pending",
        "approved",
        "withdrawn",
    ]
