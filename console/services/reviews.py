"""After-reviews: whether breaking glass was justified, as those who were passed over sign it. Blocking, for a thread."""

from __future__ import annotations

from console.auth.authorization import Caller, answering_groups, missing_group_text
from console.services.decide_request import why_own_job
from console.services.inputs import SignedBody
from console.services.signed_statements import parse_own_statement, validate_statement
from justenough.domain.approvals.statements import ReviewStatement
from justenough.domain.core.errors import Conflict, Forbidden, NotFound, Stale
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import RequestView, ReviewView
from justenough.services.dependencies import Deps


def submit_review(deps: Deps, caller: Caller, request: str, body: SignedBody) -> RequestView:
    """Record the caller's signed review of a request whose approver broke glass, and return the request. The first review stands."""
    view = deps.store.requests.get(request)
    if view is None or view.review is None:
        raise NotFound(f"nobody broke glass for a request {request}")
    job = deps.store.jobs.get(view.job_id)
    why = why_own_job(deps, caller, view, requester_id=job.requester_id if job else "")
    _must_be_entitled(caller, view.review, is_theirs=why is not None)
    _must_be_open(view.review)
    statement = _parse_statement(deps, caller, view, body)
    answered = build_event(
        EventType.REVIEW_ANSWERED,
        view.job_id,
        at=deps.now(),
        about=view.id,
        request=view.id,
        person=caller.person.id,
        name=caller.person.name,
        verdict=statement.verdict,
        reason=statement.reason,
        signed=body.to_signed().model_dump(mode="json"),
    )
    new = deps.store.ledger.append([answered])
    found = deps.store.requests.get(view.id)
    assert found is not None, "a request stays"
    assert found.review is not None, "and its review too"
    if not new:
        # Somebody else was faster.
        _must_be_open(found.review)
    return found


def _must_be_open(review: ReviewView) -> None:
    if not review.open:
        raise Conflict(f"{review.reviewer} has answered this review already: {review.verdict}")


def _must_be_entitled(caller: Caller, review: ReviewView, *, is_theirs: bool) -> None:
    if is_theirs or caller.person.id == review.person_id:
        raise Forbidden("neither who broke glass nor who launched the job, or one that it came of, reviews it")
    if caller.tier < max(review.tiers):
        raise Forbidden(missing_group_text(answering_groups(max(review.tiers), caller.tiers)))


def _parse_statement(deps: Deps, caller: Caller, view: RequestView, body: SignedBody) -> ReviewStatement:
    statement = parse_own_statement(ReviewStatement, body, caller)
    if statement.digest != view.digest:
        raise Stale("the statement is for another digest than the request's")
    wrong = {
        "job": (statement.job != view.job_id, "is another job's"),
        "request": (statement.request != view.id, "is another request's"),
    }
    validate_statement(deps, statement, body, wrong)
    return statement
