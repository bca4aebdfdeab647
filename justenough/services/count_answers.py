"""Examines what was sent to a job as answers, in order: what each changes, and the one ledger entry that each is. Records nothing itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.verification import NOT_WAITING, Rejection, RequestTally, Withdrawal
from justenough.domain.contracts.workflow_messages import AnswersInput, AnswersResult
from justenough.domain.core.ids import request_number_of
from justenough.domain.ledger.events import Event
from justenough.domain.readmodel.views import RequestView
from justenough.services.control_group_votes import build_control_group_verifier
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_grant, why_policy_denies_grant
from justenough.services.ledger_events import (
    access_decided_event,
    approval_decided_event,
    approval_rejected_event,
    approval_withdrawn_event,
    review_opened_event,
)
from justenough.services.parent_chain import ancestor_launchers, console_requester_of


class AnswerCounter:
    """One job's requests while answers are counted. What they were is a workflow's word; what the ledger says of them is looked up."""

    def __init__(self, deps: Deps, received: AnswersInput) -> None:
        self._deps = deps
        self._job = received.job
        self._received_ladders = {**received.approved, **received.ladders}
        self._pending_requests = frozenset(received.ladders)
        self._tallies = {name: RequestTally(ladder, "approved") for name, ladder in received.approved.items()}
        self._tallies |= {name: RequestTally(ladder) for name, ladder in received.ladders.items()}
        self.events: list[Event] = []
        """An entry for each that was taken, whether it counts or not, and what follows from it."""

    def count_signal(self, raw: Any, *, number: int) -> None:
        """Examine what one signal carried."""
        taken = self._count(raw)
        self.events += [self._build_rejection_event(raw, taken.why, about=f"signal-{number}")] if isinstance(taken, Rejection) else taken

    def result(self) -> AnswersResult:
        """Return what became of the requests that wait, and of approvals that were taken back."""
        told = {name: one for name, one in self._tallies.items() if name in self._pending_requests or one.verdict == "withdrawn"}
        return AnswersResult(
            ladders={name: one.ladder for name, one in told.items()}, verdicts={name: one.verdict for name, one in told.items()}
        )

    def _count(self, raw: Any) -> list[Event] | Rejection:
        """Return what follows from what was received, or why nothing does."""
        try:
            signed = SignedStatement.model_validate(raw)
        except ValidationError:
            return Rejection("not a {statement, signature}")
        request = signed.statement.get("request")
        before = self._tallies.get(request) if isinstance(request, str) else None
        if before is None:
            return Rejection(NOT_WAITING)
        recorded = find_recorded_request(self._deps, self._job, self._received_ladders[before.ladder.request])
        if isinstance(recorded, Rejection):
            return recorded
        # Who took an answer back, and who launched what the job came of, is remembered by the ledger, whatever a workflow says.
        gone = frozenset(item.approver_id for item in recorded.approvals if item.withdrawn_at)
        known = {
            "taken_back": before.ladder.taken_back | gone,
            "forebears": ancestor_launchers(self._deps, recorded.parent, asked_by=console_requester_of(self._deps, self._job)),
        }
        ladder = before.ladder.model_copy(update=known)
        after = replace(before, ladder=ladder).with_signed(
            build_control_group_verifier(self._deps, now=self._deps.now()), self._job, signed
        )
        told = after if isinstance(after, Rejection) else self._build_events(after)
        if isinstance(told, Rejection) or isinstance(after, Rejection):
            return told
        self._tallies[ladder.request] = after
        return told

    def _build_events(self, after: RequestTally) -> list[Event] | Rejection:
        """Return what the ledger is told of what brought a request where it stands, or why policy does not allow it like this."""
        now, ladder, last = self._deps.now(), after.ladder, after.last
        if isinstance(last, Withdrawal):
            return [approval_withdrawn_event(self._job, ladder.request, last, verdict=after.verdict, at=now)]
        assert last is not None, "something brought it here"
        again = self._evaluate_again(ladder, last)
        if isinstance(again, Rejection):
            return again
        tiers = self._deps.config.current().tiers
        glass = [review_opened_event(self._job, ladder, last, tiers, at=now)] if last.decision == "break_glass" else []
        return [*again, approval_decided_event(self._job, ladder, last, verdict=after.verdict, at=now), *glass]

    def _evaluate_again(self, ladder: Ladder, last: ApprovalAnswer) -> list[Event] | Rejection:
        """Return the decision of what the answers leave of a request, where that is less, or where somebody breaks glass."""
        if last.decision == "deny" or not (ladder.is_narrowed or ladder.broke_glass):
            return []
        again = evaluate_grant(self._deps, self._job, request_number_of(ladder.request), ladder.grant)
        if isinstance(again, Rejection):
            return again
        decision, facts = again
        if why := why_policy_denies_grant(ladder.grant, decision, tier=ladder.current):
            return Rejection(why)
        about, now = f"narrowed/{last.person}", self._deps.now()
        return [
            access_decided_event(self._job, ladder.request, decision, ladder.digest, facts=facts, phase="narrowed", at=now, about=about)
        ]

    def _build_rejection_event(self, raw: Any, why: str, *, about: str) -> Event:
        statement = raw.get("statement") if isinstance(raw, dict) else None
        named = statement if isinstance(statement, dict) else {}
        return approval_rejected_event(
            self._job, why, at=self._deps.now(), about=about, raw=raw, request=named.get("request"), person=named.get("person")
        )


def find_recorded_request(deps: Deps, job: str, ladder: Ladder) -> RequestView | Rejection:
    """Return what has been recorded of a request; or why a ladder, which came by way of Temporal, is not what the ledger says of it."""
    request, order = deps.store.requests.get(ladder.request), deps.store.jobs.order(job)
    if request is None or order is None or request.job_id != job:
        return Rejection("no such request of this job has been recorded")
    _, _, _, signed = order
    recorded = [(item.approver_id, item.decision, item.tier, item.ttl, item.action, item.tools) for item in request.approvals]
    answers = [(item.person, item.decision, item.tier, item.ttl, item.action, item.tools) for item in ladder.answers]
    known = (request.digest, request.tier, request.current_tier, request.action, request.ttl, signed.statement.get("person"), request.tools)
    # A job that was launched before anyone could allow less does not say its action.
    claimed = (ladder.digest, ladder.needed, ladder.current, ladder.action or request.action, ladder.ttl, ladder.requester, ladder.tools)
    if known != claimed or not all(answer in recorded for answer in answers):
        return Rejection("what it is an answer to is not what has been recorded of the request")
    return request
