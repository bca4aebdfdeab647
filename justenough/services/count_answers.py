"""Counts the answers that were sent to a job, in order, and builds one ledger entry for each. Records nothing itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.verification import NOT_WAITING, RequestTally, Withdrawal
from justenough.domain.contracts.workflow_messages import AnswersInput, AnswersResult
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.rejection import Rejection
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
    """The requests of one job while answers are counted. The workflow's account of them is checked against what was recorded."""

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
        """Count the answer that one signal carried."""
        taken = self._count(raw)
        self.events += (
            [self._build_rejection_event(raw, taken.message, about=f"signal-{number}")] if isinstance(taken, Rejection) else taken
        )

    def result(self) -> AnswersResult:
        """Return the new state of each pending request and of each withdrawn approval."""
        tallies = {
            request: tally for request, tally in self._tallies.items() if request in self._pending_requests or tally.verdict == "withdrawn"
        }
        return AnswersResult(
            ladders={request: tally.ladder for request, tally in tallies.items()},
            verdicts={request: tally.verdict for request, tally in tallies.items()},
        )

    def _count(self, raw: Any) -> list[Event] | Rejection:
        """Return the events that follow from an answer, or why it does not count."""
        try:
            signed = SignedStatement.model_validate(raw)
        except ValidationError:
            return Rejection("not_a_signed_statement", "not a {statement, signature}")
        request = signed.statement.get("request")
        before = self._tallies.get(request) if isinstance(request, str) else None
        if before is None:
            return NOT_WAITING
        recorded = find_recorded_request(self._deps, self._job, self._received_ladders[before.ladder.request])
        if isinstance(recorded, Rejection):
            return recorded
        # The ledger, not the workflow, says who withdrew an answer and who launched the job's ancestors.
        ladder = before.ladder.with_barred(
            forebears=ancestor_launchers(self._deps, recorded.parent, asked_by=console_requester_of(self._deps, self._job)),
            taken_back=frozenset(item.approver_id for item in recorded.approvals if item.withdrawn_at),
        )
        after = replace(before, ladder=ladder).with_signed(
            build_control_group_verifier(self._deps, now=self._deps.now()), self._job, signed
        )
        if isinstance(after, Rejection):
            return after
        events = self._build_events(after)
        if not isinstance(events, Rejection):
            self._tallies[ladder.request] = after
        return events

    def _build_events(self, after: RequestTally) -> list[Event] | Rejection:
        """Build the events of the answer that was counted last, or return why policy denies what it leaves of the request."""
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
        """Evaluate what the answers leave of a request, if that is less than requested or somebody broke glass."""
        if last.decision == "deny" or not (ladder.is_narrowed or ladder.broke_glass):
            return []
        again = evaluate_grant(self._deps, self._job, request_number_of(ladder.request), ladder.grant)
        if isinstance(again, Rejection):
            return again
        decision, facts = again
        if rejection := why_policy_denies_grant(ladder.grant, decision, tier=ladder.current):
            return rejection
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
    """Return the recorded request, or why a ladder that came through Temporal does not match it."""
    request, order = deps.store.requests.get(ladder.request), deps.store.jobs.order(job)
    if request is None or order is None or request.job_id != job:
        return Rejection("request_unknown", "no such request of this job has been recorded")
    recorded = [(item.approver_id, item.decision, item.tier, item.ttl, item.action, item.tools) for item in request.approvals]
    answers = [(item.person, item.decision, item.tier, item.ttl, item.action, item.tools) for item in ladder.answers]
    known = (
        request.digest,
        request.tier,
        request.current_tier,
        request.action,
        request.ttl,
        order.signed.statement.get("person"),
        request.tools,
    )
    # Jobs that were launched before approvals could be narrowed have no action in their ladder.
    claimed = (ladder.digest, ladder.needed, ladder.current, ladder.action or request.action, ladder.ttl, ladder.requester, ladder.tools)
    if known != claimed or not all(answer in recorded for answer in answers):
        return Rejection("request_changed", "what it is an answer to is not what has been recorded of the request")
    return request
