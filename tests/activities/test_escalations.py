"""The activity that escalates a request, called as a workflow calls it: by workers whose clocks differ, and again if its result got lost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from temporalio.testing import ActivityEnvironment

from activities.broker import ToolGateway
from activities.issuing.results import IssuedCredential, PendingRequest
from activities.job_activities import JobActivities, RequestLost
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.approvals.statements import Narrowing, build_decision_statement, to_signable
from justenough.domain.approvals.verification import Withdrawal
from justenough.domain.contracts.workflow_messages import AnswersInput, AnswersResult, ClimbInput, ClimbResult, JobInput, OpenInput
from justenough.domain.core.ids import job_of, new_job_id
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, RequestState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import RequestView
from justenough.services.ledger_events import approval_withdrawn_event, job_submitted_event
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.issuing_session import start_session
from tests.activities.test_long_calls import broker_of, nobody
from tests.activities.vault_shop import SPEC, Desk, Shop, Someone, copy_config, open_desk
from tests.support.wait import until

pytestmark = pytest.mark.servers

WRITE: dict[str, Any] = {**SPEC, "access": [{"resource": "orders-db", "action": "write", "ttl": "10m", "reason": "Mend the order"}]}


class WaitingJob:
    """A job whose write waits for people: at its start, or while it runs if `asked` is the request of its session."""

    def __init__(self, at: Desk, *, asked: str = "", order: JobInput | None = None) -> None:
        own = order.job if order else new_job_id("dev", now=at.deps.now())
        self.at, self.job = at, job_of(asked) if asked else own
        if asked:
            ladder = self._call(JobActivities(at.deps).open_request, OpenInput(job=self.job, request=asked)).ladder
        else:
            order = order or at.shop.sign_in("ops").order(self.job, now=at.deps.now(), spec=WRITE)
            ladder = self._call(JobActivities(at.deps).decide_requests, order).requests[0].ladder
        assert ladder is not None
        self.ladder: Ladder = ladder

    def climb(self, ladder: Ladder) -> ClimbResult:
        result: ClimbResult = self._call(JobActivities(self.at.deps).climb, ClimbInput(job=self.job, ladder=ladder))
        return result

    def answer(self, who: Someone, decision: Literal["approve", "withdraw", "break_glass"] = "approve", *, ttl: int | None = None) -> None:
        ladder, now, narrowing = self.ladder, self.at.deps.now(), Narrowing(ttl=ttl)
        request = {"job_id": self.job, "id": ladder.request, "digest": ladder.digest, "ttl": ladder.ttl, "action": ladder.action}
        statement = build_decision_statement(request, decision, narrowing=narrowing, reason="needed", person=who.id, now=now)
        self.ladder = self.count(who.sign(to_signable(statement)).model_dump(mode="json")).ladders[ladder.request]

    def count(self, answer: Any) -> AnswersResult:
        answers = AnswersInput(job=self.job, ladders={self.ladder.request: self.ladder}, received=(answer,), number=1)
        result: AnswersResult = self._call(JobActivities(self.at.deps).take_answers, answers)
        return result

    def request(self) -> RequestView:
        view = self.at.deps.store.requests.get(self.ladder.request)
        assert view is not None
        return view

    def let_time_pass(self, ladder: Ladder) -> None:
        self.at.clock.ahead += ladder.respond_by - self.at.deps.now()

    def _call(self, activity: Any, argument: Any) -> Any:
        environment = ActivityEnvironment()
        environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=self.job)
        return environment.run(activity, argument)


def two_at_tier_1(folder: Path) -> Path:
    """A configuration whose first tier needs two approvals."""
    found = copy_config(folder)
    approvals = found / "approvals.yaml"
    approvals.write_text(approvals.read_text().replace("quorum: 1", "quorum: 2", 1))
    return found


def test_a_workflow_whose_clock_is_ahead_counts_answers_until_the_time_is_over(at: Desk) -> None:
    job = WaitingJob(at)
    early = job.climb(job.ladder).ladder
    assert early is not None
    assert early == job.ladder.model_copy(update={"respond_by": early.respond_by})
    left = job.ladder.respond_by - at.deps.now()
    assert left <= early.respond_by - job.ladder.respond_by < left + timedelta(minutes=1)
    assert job.request().current_tier == job.ladder.current
    job.let_time_pass(job.ladder)
    after = job.climb(job.ladder).ladder
    assert after is not None
    assert after.current == job.ladder.current + 1


def test_an_escalation_to_a_tier_for_which_the_approvals_so_far_are_enough_approves_the_request(shop: Shop, tmp_path: Path) -> None:
    with open_desk(shop, tmp_path, folder=two_at_tier_1(tmp_path)) as at:
        job = WaitingJob(at)
        job.answer(at.shop.sign_in("security"), ttl=120)
        assert job.request().state is RequestState.PENDING
        job.let_time_pass(job.ladder)

        # The later calls are those of a workflow which did not get the first one's result.
        results = [job.climb(job.ladder) for _ in range(2)]
        counted = job.count({"statement": {"request": job.ladder.request}, "signature": "none"})

        assert [result.approved for result in results] == [True, True]
        assert (counted.verdicts, counted.ladders) == ({job.ladder.request: "approved"}, {job.ladder.request: results[0].ladder})
        assert (job.request().state, job.request().current_tier, job.request().granted_ttl) == (RequestState.APPROVED, 2, 120)


def test_an_escalation_that_approves_a_request_shows_which_approvals_it_did_not_count(shop: Shop, tmp_path: Path) -> None:
    with open_desk(shop, tmp_path, folder=two_at_tier_1(tmp_path)) as at:
        job, gone, left = WaitingJob(at), at.shop.newcomer("gone-before", "security"), at.shop.newcomer("left-after", "security")
        job.answer(gone)
        at.shop.leave(gone, "security")
        job.answer(left)
        job.let_time_pass(job.ladder)

        assert job.climb(job.ladder).approved

        assert [item.approver for item in job.request().counting_approvals] == [left.name]


@pytest.mark.parametrize("loses", ["its approval", "its group"])
def test_an_escalation_does_not_approve_a_request_with_an_approval_that_no_longer_counts(shop: Shop, tmp_path: Path, *, loses: str) -> None:
    with open_desk(shop, tmp_path, folder=two_at_tier_1(tmp_path)) as at:
        job, person = WaitingJob(at), at.shop.newcomer(f"lapsed-{loses.removeprefix('its ')}", "security")
        job.answer(person)
        if loses == "its group":
            at.shop.leave(person, "security")
        else:
            # The console records a withdrawal like this while Vault does not answer. The workflow does not learn of it.
            taken_back = Withdrawal(person=person.id, name=person.name, reason="a mistake", signed=None)
            at.deps.store.ledger.append(
                [approval_withdrawn_event(job.job, job.ladder.request, taken_back, verdict="pending", at=at.deps.now())]
            )
        job.let_time_pass(job.ladder)

        # The later call is that of a workflow which did not get the first one's result.
        results = [job.climb(job.ladder) for _ in range(2)]

        assert [result.approved for result in results] == [False, False]
        # Keep the answer of somebody who has left: they may come back, but cannot answer again.
        kept = results[0].ladder.answers if results[0].ladder else ()
        assert [answer.person for answer in kept] == ([person.id] if loses == "its group" else [])
        assert (job.request().state, job.request().current_tier) == (RequestState.PENDING, 2)
        job.ladder = results[-1].ladder or job.ladder
        for approved in (False, True):
            if approved:
                job.answer(at.shop.sign_in("security"))
            request = job.request()
            assert [item.approver for item in request.counting_approvals] == ["security"] * approved
            why = request.approvals[0].lapsed
            assert f"{person.name} is in no group that approves requests" == why if loses == "its group" else why is None
        assert job.request().state is RequestState.APPROVED


@contextlib.contextmanager
def forget_what_is_recorded(file: Path) -> Iterator[None]:
    """Take from the store what is recorded in the block, as an asynchronous failover does."""
    with contextlib.closing(sqlite3.connect(":memory:")) as kept, contextlib.closing(sqlite3.connect(file)) as live:
        live.backup(kept)
        yield
        kept.backup(live)


def recorded_order(at: Desk) -> JobInput:
    """An order of which the store knows only that it was submitted."""
    order = at.shop.sign_in("ops").order(new_job_id("dev", now=at.deps.now()), now=at.deps.now(), spec=WRITE)
    verified = verify_order(at.deps, order, now=at.deps.now())
    assert isinstance(verified, VerifiedOrder)
    at.deps.store.ledger.append([job_submitted_event(order, verified, at=at.deps.now())])
    return order


def test_a_request_that_a_failover_lost_is_recorded_again_once_its_tier_should_have_decided(at: Desk, tmp_path: Path) -> None:
    order = recorded_order(at)
    with forget_what_is_recorded(tmp_path / "store.db"):
        job = WaitingJob(at, order=order)
        before = job.request()
    assert at.deps.store.requests.get(before.id) is None
    job.let_time_pass(job.ladder)
    # The store was away for a while.
    at.clock.ahead += timedelta(minutes=30)

    again = job.climb(job.ladder).ladder

    assert again is not None
    view = job.request()
    assert (view.state, view.digest, view.tier, view.current_tier) == (RequestState.PENDING, before.digest, before.tier, before.tier)
    assert again == job.ladder.model_copy(update={"respond_by": again.respond_by})
    # The workflow waits for the time by which its deadline was put off.
    assert view.expires_at is not None
    left = view.expires_at - at.deps.now()
    assert left <= again.respond_by - job.ladder.respond_by < left + timedelta(minutes=1)
    job.ladder = again
    job.answer(at.shop.sign_in("security"))
    assert job.request().state is RequestState.APPROVED


def test_a_request_that_a_failover_lost_together_with_an_answer_is_not_recorded_again(shop: Shop, tmp_path: Path) -> None:
    with open_desk(shop, tmp_path, folder=two_at_tier_1(tmp_path)) as at:
        order = recorded_order(at)
        with forget_what_is_recorded(tmp_path / "store.db"):
            job = WaitingJob(at, order=order)
            job.answer(shop.sign_in("lead"))
        job.let_time_pass(job.ladder)

        # Further answers could not count: the workflow's copy has one that is not recorded.
        with pytest.raises(RequestLost):
            job.climb(job.ladder)
        assert at.deps.store.requests.get(job.ladder.request) is None


def test_a_start_request_that_a_failover_lost_is_not_recorded_again_once_the_job_runs(at: Desk, tmp_path: Path) -> None:
    order = recorded_order(at)
    with forget_what_is_recorded(tmp_path / "store.db"):
        job = WaitingJob(at, order=order)
    job.let_time_pass(job.ladder)
    began = {"worker": "w", "sandbox": "off", "run": "r", "times_out_at": at.deps.now().isoformat()}
    at.deps.store.ledger.append([build_event(EventType.JOB_STARTED, order.job, at=at.deps.now(), **began)])

    with pytest.raises(RequestLost):
        job.climb(job.ladder)
    assert at.deps.store.requests.get(job.ladder.request) is None


def test_a_withdrawn_answer_does_not_count_again_after_a_failover_lost_its_request(shop: Shop, tmp_path: Path) -> None:
    with open_desk(shop, tmp_path, folder=two_at_tier_1(tmp_path)) as at:
        order, lead = recorded_order(at), shop.sign_in("lead")
        with forget_what_is_recorded(tmp_path / "store.db"):
            job = WaitingJob(at, order=order)
            job.answer(lead)
            job.answer(lead, "withdraw")
            job.let_time_pass(job.ladder)
            after = job.climb(job.ladder).ladder
        assert after is not None
        assert after.taken_back == {lead.id}

        again = job.climb(after).ladder

        assert again is not None
        assert (again.current, again.taken_back) == (job.ladder.current, frozenset({lead.id}))


def test_a_running_jobs_request_that_a_failover_lost_is_made_again(at: Desk, tmp_path: Path) -> None:
    session = start_session(at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look"})
    write = Access(resource="orders-db", action=Action.WRITE, ttl=60, reason="Mend the order", at="request")
    with forget_what_is_recorded(tmp_path / "store.db"):
        lost = session.issuer.access(write)
        assert isinstance(lost, PendingRequest)

    waiting = session.issuer.access(write, waited_for=lost.request_id)

    assert isinstance(waiting, PendingRequest)
    view = at.deps.store.requests.get(waiting.request_id)
    assert view is not None
    assert (view.state, view.tier) == (RequestState.PENDING, waiting.tier)
    assert session.issuer.access(write, waited_for=lost.request_id) == waiting
    session.end()


async def test_a_tool_call_that_waits_for_people_asks_them_again_if_a_failover_lost_its_request(at: Desk, tmp_path: Path) -> None:
    session = await asyncio.to_thread(start_session, at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look"})
    broker, _ = broker_of(session)
    gateway, refund = ToolGateway(at.deps, session.verified, session.issuer, broker), {"order_id": 1, "amount": 1, "reason": "broken"}

    def newest_request() -> str:
        view = at.deps.store.jobs.get(session.job)
        return max((request.id for request in view.requests if request.resource == "refunds-db"), default="") if view else ""

    with forget_what_is_recorded(tmp_path / "store.db"):
        call = asyncio.create_task(gateway.call("refund-order", refund, report_progress=nobody, max_wait=3))
        lost = await asyncio.to_thread(until, newest_request, "the call waits for people")
    answer = await call

    assert newest_request() not in {"", lost}
    assert f"(request {newest_request()}, tier 1); nothing was done. Continue with other work." in answer.text
    broker.close()
    await asyncio.to_thread(session.end)


def test_an_escalation_whose_result_got_lost_keeps_the_recorded_deadline(at: Desk) -> None:
    job = WaitingJob(at)
    job.let_time_pass(job.ladder)
    first = job.climb(job.ladder)
    at.clock.ahead += timedelta(minutes=7)
    assert job.climb(job.ladder) == first


def test_approvals_that_an_escalation_discarded_or_people_withdrew_are_not_recorded_as_rejected_attempts(
    shop: Shop, tmp_path: Path
) -> None:
    with open_desk(shop, tmp_path, folder=two_at_tier_1(tmp_path)) as at:
        session = start_session(at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look"})
        write = Access(resource="orders-db", action=Action.WRITE, ttl=60, reason="Mend the order", at="request")
        asked = session.issuer.access(write)
        assert isinstance(asked, PendingRequest)
        job = WaitingJob(at, asked=asked.request_id)
        job.answer(at.shop.sign_in("chief"))
        job.answer(at.shop.sign_in("chief"), "withdraw")
        job.answer(at.shop.sign_in("lead"))
        job.let_time_pass(job.ladder)
        job.ladder = job.climb(job.ladder).ladder or job.ladder
        job.answer(at.shop.sign_in("security"))
        assert job.request().state is RequestState.APPROVED

        issued = session.issuer.access(write)

        assert isinstance(issued, IssuedCredential)
        session.end()
        assert at.deps.store.ledger.entries(job=session.job, types=[EventType.APPROVAL_REJECTED]).items == ()


def remove_top_tier(at: Desk, folder: Path) -> None:
    """Take tier 3 out of a configuration while a worker uses it."""
    approvals = folder / "approvals.yaml"
    approvals.write_text("".join(line for line in approvals.read_text().splitlines(keepends=True) if not line.startswith("  3:")))
    at.deps.config.refresh()
    assert at.deps.config.current().tiers.top == 2


def test_break_glass_counts_for_a_request_whose_tier_has_left_the_configuration(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    approvals = folder / "approvals.yaml"
    text = approvals.read_text().replace("break_glass: [break-glass]", "break_glass: [chiefs]")
    # The order must still be valid then.
    approvals.write_text(text.replace("respond_within: 1h", "respond_within: 15m"))
    with open_desk(shop, tmp_path, folder=folder) as at:
        job = WaitingJob(at)
        for _ in range(2):
            job.let_time_pass(job.ladder)
            job.ladder = job.climb(job.ladder).ladder or job.ladder
        assert job.ladder.current == 3
        remove_top_tier(at, folder)

        job.answer(at.shop.sign_in("chief"), "break_glass")

        view = job.request()
        assert view.state is RequestState.APPROVED
        assert view.review is not None
        assert view.review.tiers == (1, 2)


def test_a_running_jobs_request_expires_if_its_tier_has_left_the_configuration_before_it_was_opened(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    policies = folder / "policies" / "writes.cedar"
    policies.write_text(policies.read_text().replace("when { context.approved_tier >= 2 };", "when { context.approved_tier >= 3 };"))
    with open_desk(shop, tmp_path, folder=folder) as at:
        session = start_session(at, {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "Look"})
        asked = session.issuer.access(Access(resource="orders-db", action=Action.ADMIN, ttl=60, reason="Mend the table", at="request"))
        assert isinstance(asked, PendingRequest)
        assert asked.tier == 3
        remove_top_tier(at, folder)

        environment = ActivityEnvironment()
        environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=session.job)
        opened = [
            environment.run(JobActivities(at.deps).open_request, OpenInput(job=session.job, request=asked.request_id)) for _ in range(2)
        ]

        assert [result.ladder for result in opened] == [None, None]
        view = at.deps.store.requests.get(asked.request_id)
        assert view is not None
        assert view.state is RequestState.EXPIRED
