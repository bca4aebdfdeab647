"""Reviews of break-glass approvals: a bypassed approver signs whether the approval was justified. Blocking, for a thread."""

from __future__ import annotations

from console.auth.authorization import Caller
from console.services.decide_request import why_own_job
from console.services.inputs import SignedBody
from console.services.signed_statements import parse_own_statement, validate_statement
from justenough.domain.approvals.statements import ReviewStatement
from justenough.domain.core.errors import Conflict, Forbidden, NotFound, Stale
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import RequestView, ReviewView
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import event_of_person


def submit_review(deps: Deps, caller: Caller, request: str, body: SignedBody) -> RequestView:
    """Record the caller's signed review of a break-glass approval and return the request. Raises Conflict if it was reviewed before."""
    view = deps.store.requests.get(request)
    if view is None or view.review is None:
        raise NotFound(f"there is no request {request} that was approved by break-glass")
    job = deps.store.jobs.get(view.job_id)
    if view.review.person_id == caller.person.id or why_own_job(deps, caller, view, requester_id=job.requester_id if job else ""):
        raise Forbidden("you may not review this: you used break-glass, or you launched the job or an ancestor of it")
    # The top tier reviews for tiers that have left approvals.yaml since.
    caller.require_tier(min(max(view.review.tiers), caller.tiers.top))
    _require_open(view.review)
    statement = parse_own_statement(ReviewStatement, body, caller)
    if statement.digest != view.digest:
        raise Stale("the statement's digest is not the request's; read the request again")
    checks = {"job": (statement.job != view.job_id, "is another job's"), "request": (statement.request != view.id, "is another request's")}
    validate_statement(deps, statement, body, checks)
    answered = event_of_person(
        caller.person,
        EventType.REVIEW_ANSWERED,
        view.job_id,
        at=deps.now(),
        about=view.id,
        request=view.id,
        verdict=statement.verdict,
        reason=statement.reason,
        signed=body.to_signed().model_dump(mode="json"),
    )
    new = deps.store.ledger.append([answered])
    updated = deps.store.requests.get(view.id)
    assert updated is not None, "requests are never deleted"
    assert updated.review is not None, "reviews are never deleted"
    if not new:
        # Another reviewer answered in the meantime.
        _require_open(updated.review)
    return updated


def _require_open(review: ReviewView) -> None:
    if not review.open:
        raise Conflict(f"{review.reviewer} has already answered this review: {review.verdict}")
