"""Examines what was sent to a job as answers, in order: what each changes, and the one ledger entry that each is. Records nothing itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from justenough.domain.approvals.ladder import Answer, Ladder
from justenough.domain.approvals.statements import Signed
from justenough.domain.approvals.verification import NOT_WAITING, Refused, Standing, Withdrawal
from justenough.domain.contracts.workflow_messages import AnswersInput, AnswersResult
from justenough.domain.core.ids import number_of
from justenough.domain.ledger.events import Event
from justenough.domain.readmodel.views import RequestView
from justenough.services.control_group_votes import whole_table
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import as_granted, why_not_as_granted
from justenough.services.ledger_events import counted_event, decided_event, rejected, review_opened, taken_back
from justenough.services.parent_chain import asker_of, forebears


class Counting:
    """One job's requests while answers are counted. What they were is a workflow's word; what the ledger says of them is looked up."""

    def __init__(self, deps: Deps, received: AnswersInput) -> None:
        self._deps = deps
        self._job = received.job
        self._given = {**received.approved, **received.ladders}
        self._asked = frozenset(received.ladders)
        self._standings = {name: Standing(ladder, "approved") for name, ladder in received.approved.items()}
        self._standings |= {name: Standing(ladder) for name, ladder in received.ladders.items()}
        self.events: list[Event] = []
        """An entry for each that was taken, whether it counts or not, and what follows from it."""

    def take(self, raw: Any, *, number: int) -> None:
        """Examine what one signal carried."""
        taken = self._taken(raw)
        self.events += [self._rejected(raw, taken.why, about=f"signal-{number}")] if isinstance(taken, Refused) else taken

    def result(self) -> AnswersResult:
        """Return what became of the requests that wait, and of approvals that were taken back."""
        told = {name: one for name, one in self._standings.items() if name in self._asked or one.verdict == "withdrawn"}
        return AnswersResult(
            ladders={name: one.ladder for name, one in told.items()}, verdicts={name: one.verdict for name, one in told.items()}
        )

    def _taken(self, raw: Any) -> list[Event] | Refused:
        """Return what follows from what was received, or why nothing does."""
        try:
            signed = Signed.model_validate(raw)
        except ValidationError:
            return Refused("not a {statement, signature}")
        request = signed.statement.get("request")
        before = self._standings.get(request) if isinstance(request, str) else None
        if before is None:
            return Refused(NOT_WAITING)
        recorded = recorded_of(self._deps, self._job, self._given[before.ladder.request])
        if isinstance(recorded, Refused):
            return recorded
        # Who took an answer back, and who launched what the job came of, is remembered by the ledger, whatever a workflow says.
        gone = frozenset(item.approver_id for item in recorded.approvals if item.withdrawn_at)
        known = {
            "taken_back": before.ladder.taken_back | gone,
            "forebears": forebears(self._deps, recorded.parent, asked_by=asker_of(self._deps, self._job)),
        }
        ladder = before.ladder.model_copy(update=known)
        after = replace(before, ladder=ladder).sent(whole_table(self._deps, now=self._deps.now()), self._job, signed)
        told = after if isinstance(after, Refused) else self._told(after)
        if isinstance(told, Refused) or isinstance(after, Refused):
            return told
        self._standings[ladder.request] = after
        return told

    def _told(self, after: Standing) -> list[Event] | Refused:
        """Return what the ledger is told of what brought a request where it stands, or why policy does not allow it like this."""
        now, ladder, last = self._deps.now(), after.ladder, after.last
        if isinstance(last, Withdrawal):
            return [taken_back(self._job, ladder.request, last, verdict=after.verdict, at=now)]
        assert last is not None, "something brought it here"
        again = self._decided_again(ladder, last)
        if isinstance(again, Refused):
            return again
        tiers = self._deps.config.current().tiers
        glass = [review_opened(self._job, ladder, last, tiers, at=now)] if last.decision == "break_glass" else []
        return [*again, counted_event(self._job, ladder, last, verdict=after.verdict, at=now), *glass]

    def _decided_again(self, ladder: Ladder, last: Answer) -> list[Event] | Refused:
        """Return the decision of what the answers leave of a request, where that is less, or where somebody breaks glass."""
        if last.decision == "deny" or not (ladder.is_narrowed or ladder.broke_glass):
            return []
        again = as_granted(self._deps, self._job, number_of(ladder.request), ladder.grant)
        if isinstance(again, Refused):
            return again
        decision, facts = again
        if why := why_not_as_granted(ladder.grant, decision, tier=ladder.current):
            return Refused(why)
        about, now = f"narrowed/{last.person}", self._deps.now()
        return [decided_event(self._job, ladder.request, decision, ladder.digest, facts=facts, phase="narrowed", at=now, about=about)]

    def _rejected(self, raw: Any, why: str, *, about: str) -> Event:
        statement = raw.get("statement") if isinstance(raw, dict) else None
        named = statement if isinstance(statement, dict) else {}
        return rejected(self._job, why, at=self._deps.now(), about=about, raw=raw, request=named.get("request"), person=named.get("person"))


def recorded_of(deps: Deps, job: str, ladder: Ladder) -> RequestView | Refused:
    """Return what has been recorded of a request; or why a ladder, which came by way of Temporal, is not what the ledger says of it."""
    request, order = deps.store.request(ladder.request), deps.store.order(job)
    if request is None or order is None or request.job_id != job:
        return Refused("no such request of this job has been recorded")
    _, _, _, signed = order
    recorded = [(item.approver_id, item.decision, item.tier, item.ttl, item.action, item.tools) for item in request.approvals]
    answers = [(item.person, item.decision, item.tier, item.ttl, item.action, item.tools) for item in ladder.answers]
    known = (request.digest, request.tier, request.current_tier, request.action, request.ttl, signed.statement.get("person"), request.tools)
    # A job that was launched before anyone could allow less does not say its action.
    claimed = (ladder.digest, ladder.needed, ladder.current, ladder.action or request.action, ladder.ttl, ladder.requester, ladder.tools)
    if known != claimed or not all(answer in recorded for answer in answers):
        return Refused("what it is an answer to is not what has been recorded of the request")
    return request
