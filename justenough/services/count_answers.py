"""Counts the answers that were sent to a job, in order, and builds one ledger entry for each. Records nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.verification import NOT_WAITING, RequestTally, Verdict, Withdrawal
from justenough.domain.contracts.workflow_messages import AnswersInput, AnswersResult
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import LAPSED, Event, EventType
from justenough.domain.readmodel.views import EntryView, RequestView
from justenough.services.approval_ladder import ladder_for_recorded_request
from justenough.services.control_group_votes import build_control_group_verifier
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import REQUEST_UNKNOWN, evaluate_grant, why_policy_denies_grant
from justenough.services.ledger_events import (
    access_decided_event,
    approval_decided_event,
    approval_rejected_event,
    approval_withdrawn_event,
    review_opened_event,
)
from justenough.services.parent_chain import ancestor_launchers, console_requester_of

MAX_REJECTIONS_RECORDED = 500
"""After this many answers of one job, answers that do not count are no longer recorded, because anybody can send them."""
log = structlog.get_logger()


class AnswerCounter:
    """The requests of one job while answers are counted. The workflow's ladders are checked against the recorded requests."""

    def __init__(self, deps: Deps, received: AnswersInput) -> None:
        self._deps = deps
        self._job = received.job
        self._received_ladders = {**received.approved, **received.ladders}
        self._pending_requests = frozenset(received.ladders)
        self._tallies = {name: RequestTally(ladder, "approved") for name, ladder in received.approved.items()}
        self._tallies |= {name: RequestTally(ladder) for name, ladder in received.ladders.items()}
        self.events: list[Event] = []
        """One entry for each answer, whether it counts or not, followed by its consequences."""

    def count_signal(self, raw: Any, *, number: int) -> None:
        """Count the answer in one signal. `number`: its place among the job's signals, or 0 if it came through the store."""
        try:
            events = self._count(raw)
        except GiveUp as error:
            # Another attempt would not help, and it must neither be lost unrecorded nor keep other answers from being counted.
            events = Rejection("not_verifiable", f"it cannot be verified: {error}")
        if isinstance(events, Rejection) and number > MAX_REJECTIONS_RECORDED:
            if number == MAX_REJECTIONS_RECORDED + 1:
                log.warning("many answers that do not count; further ones are not recorded", job=self._job, why=events.message)
            return
        if isinstance(events, Rejection):
            statement = raw.get("statement") if isinstance(raw, dict) else None
            named = statement if isinstance(statement, dict) else {}
            ids = {"request": named.get("request"), "person": named.get("person")}
            about = f"signal-{number}"
            events = [approval_rejected_event(self._job, events.message, at=self._deps.now(), about=about, raw=raw, **ids)]
        self.events += events

    def result(self) -> AnswersResult:
        """Return the new state of each pending request and of each withdrawn approval."""
        changed = [tally for request, tally in self._tallies.items() if request in self._pending_requests or tally.verdict == "withdrawn"]
        return AnswersResult(
            ladders={tally.ladder.request: tally.ladder for tally in changed},
            verdicts={tally.ladder.request: tally.verdict for tally in changed},
        )

    def _count(self, raw: Any) -> list[Event] | Rejection:
        """Return the events that follow from an answer, or why it does not count."""
        try:
            signed = SignedStatement.model_validate(raw)
        except ValidationError:
            return Rejection("not_a_signed_statement", "not a signed statement: it needs `statement` and `signature`")
        request = signed.statement.get("request")
        before = self._tallies.get(request) if isinstance(request, str) else None
        if before is None:
            return NOT_WAITING
        received, view = self._received_ladders[str(request)], self._deps.store.requests.get(before.ladder.request)
        if view and view.expires_at and view.current_tier == received.current + 1 > view.tier:
            # It was escalated, and the workflow did not learn of it, because its worker died.
            self._received_ladders[str(request)] = received = received.at_tier(view.current_tier, respond_by=view.expires_at)
            escalated = self._deps.store.ledger.entry(f"{self._job}/{EventType.APPROVAL_ESCALATED}/{view.id}/{view.current_tier}")
            verdict: Verdict = "approved" if escalated and escalated.data.get("verdict") else "pending"
            self._tallies[str(request)] = before = replace(before, ladder=received, verdict=verdict)
        recorded = find_recorded_request(self._deps, self._job, received)
        if isinstance(recorded, Rejection):
            return recorded
        if recorded.state is RequestState.WITHDRAWN and before.verdict in {"pending", "withdrawn"}:
            # It was withdrawn after this workflow's copy was made: by an earlier attempt to count these answers, or while Vault was unreachable.
            self._tallies[recorded.id] = replace(before, verdict="withdrawn")
            is_recorded = any(item.approver_id == signed.statement.get("person") for item in recorded.approvals)
            return [] if is_recorded or signed.statement.get("decision") == "withdraw" else NOT_WAITING
        # The ledger, not the workflow, determines who withdrew an answer and who launched the job's ancestors. A withdrawal that it has, but of
        # which the workflow did not learn, has the same result again.
        again = signed.statement.get("person") if signed.statement.get("decision") == "withdraw" else None
        ladder = before.ladder.with_barred(
            forebears=ancestor_launchers(self._deps, recorded.parent, asked_by=console_requester_of(self._deps, self._job)),
            taken_back=frozenset(person for person in recorded.withdrawers if person != again),
        )
        lost, tally = self._lost_answer(recorded, before, signed), replace(before, ladder=ladder)
        verifier = build_control_group_verifier(self._deps, now=self._deps.now())
        after = tally.with_recorded(*lost) if lost else tally.with_signed(verifier, self._job, signed)
        if isinstance(after, Rejection):
            return after
        events = [] if lost else self._build_events(after, recorded)
        if not isinstance(events, Rejection):
            self._tallies[ladder.request] = after
        return events

    def _lost_answer(self, recorded: RequestView, before: RequestTally, signed: SignedStatement) -> tuple[ApprovalAnswer, Verdict] | None:
        """Return an answer to a pending request as it is recorded, and the verdict after it, if the workflow did not learn of it, because its
        worker died; else None.

        Examined again, it could have another result: its person's groups may have changed, and the record would differ for good.
        """
        # Anybody can send an answer, and its person may be anything, so these are not sets.
        person, known = signed.statement.get("person"), [item.person for item in before.ladder.answers]
        if before.verdict != "pending" or person in known or person not in [item.approver_id for item in recorded.approvals]:
            return None
        entries = self._deps.store.ledger.entries_about(self._job, (EventType.APPROVAL_DECIDED,), f"{recorded.id}/{person}")
        answers = ((ApprovalAnswer.model_validate(entry.data | {"at": entry.at}), entry.data["verdict"]) for entry in entries)
        return next(((answer, verdict) for answer, verdict in answers if answer.signed == signed), None)

    def _build_events(self, after: RequestTally, recorded: RequestView) -> list[Event] | Rejection:
        """Build the events of the last answer, or return why policy denies the request after the answer has narrowed it."""
        job, now, ladder, last, events = self._job, self._deps.now(), after.ladder, after.last, list[Event]()
        if isinstance(last, Withdrawal):
            return [approval_withdrawn_event(job, ladder.request, last, verdict=after.verdict, at=now)]
        assert last is not None, "an answer was counted"
        if last.decision != "deny" and (ladder.is_narrowed or ladder.broke_glass):
            # Policy has not decided these terms yet.
            evaluation = evaluate_grant(self._deps, job, request_number_of(ladder.request), ladder.grant)
            if isinstance(evaluation, Rejection):
                return evaluation
            decision, facts = evaluation
            if rejection := why_policy_denies_grant(ladder.grant, decision, tier=ladder.current):
                return rejection
            about, digest = f"narrowed/{last.person}", ladder.digest
            events.append(access_decided_event(job, ladder.request, decision, digest, facts=facts, phase="narrowed", at=now, about=about))
        # A person who approved at a lower tier and also belongs to the current one answers again.
        again = any(item.approver_id == last.person for item in recorded.approvals)
        events.append(approval_decided_event(job, ladder, last, verdict=after.verdict, at=now, again=again))
        events += lapsed_answer_events(job, ladder, after.lapsed, at=now)
        if last.decision == "break_glass":
            events.append(review_opened_event(job, ladder, last, self._deps.config.current().tiers, at=now))
        return events


def count_withdrawal(deps: Deps, job: str, requested: EntryView) -> str | None:
    """Verify and record the withdrawal of an approval that a person requested; return its request's id, or None if it does not count.

    Sessions use this: a session may learn of a withdrawal before the workflow does, or without it. Raises RetryLater if a server is
    unreachable.
    """
    view = deps.store.requests.get(str(requested.data.get("request")))
    order = deps.store.jobs.order(job)
    if view is None or order is None or view.job_id != job:
        return None
    if view.state is RequestState.APPROVED:
        requester = str(order.order.statement.get("person"))
        ladder = ladder_for_recorded_request(view, requester=requester, respond_by=view.expires_at or requested.at)
        counter = AnswerCounter(deps, AnswersInput(job=job, ladders={}, approved={view.id: ladder}, received=(), number=0))
        counter.count_signal(requested.data.get("signed"), number=0)
        deps.store.ledger.append(counter.events)
        return view.id if counter.result().verdicts else None
    return view.id if view.state is RequestState.WITHDRAWN else None


def lapsed_answer_events(job: str, ladder: Ladder, lapsed: Iterable[tuple[ApprovalAnswer, Rejection]], *, at: datetime) -> Iterator[Event]:
    """Yield an event for each answer that counted and does not any more."""
    for answer, rejection in lapsed:
        # The answer may count again in between, so each verification, after an answer or an escalation, records an entry of its own.
        about, raw = f"{ladder.request}/{LAPSED}-{ladder.current}-{ladder.answers[-1].person}", answer.signed.model_dump(mode="json")
        yield approval_rejected_event(job, rejection.message, at=at, about=about, raw=raw, request=ladder.request, person=answer.person)


def find_recorded_request(deps: Deps, job: str, ladder: Ladder) -> RequestView | Rejection:
    """Return the recorded request, or why a ladder that came through Temporal does not match it."""
    request, order = deps.store.requests.get(ladder.request), deps.store.jobs.order(job)
    if request is None or order is None or request.job_id != job:
        return REQUEST_UNKNOWN
    recorded = [(item.approver_id, item.decision, item.tier, item.ttl, item.action, item.tools) for item in request.approvals]
    answers = [(item.person, item.decision, item.tier, item.ttl, item.action, item.tools) for item in ladder.answers]
    requester = order.order.statement.get("person")
    known = (request.digest, request.tier, request.current_tier, request.action, request.ttl, requester, request.tools)
    # Jobs that were launched before approvals could be narrowed have no action in their ladder.
    claimed = (ladder.digest, ladder.needed, ladder.current, ladder.action or request.action, ladder.ttl, ladder.requester, ladder.tools)
    if known != claimed or not all(answer in recorded for answer in answers):
        return Rejection("request_changed", "the workflow's copy of the request differs from the recorded request")
    return request
