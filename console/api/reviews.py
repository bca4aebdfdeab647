"""After-reviews: what those who were passed over think of a tier that somebody passed alone. Blocking, for a thread."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from activities.deps import Deps
from console.api.bodies import SignedBody
from console.api.context import Approver, AuthenticatedRoute, Reader, TheConsole
from console.api.deciding import why_theirs
from console.api.lists import Cursor, Limit
from console.api.rights import Caller, answering_groups, needs
from console.api.signed import must_be_whole, own
from console.problems import answers
from justenough.errors import Conflict, Forbidden, NotFound, Stale
from justenough.events import EventType, event
from justenough.statements import ReviewStatement
from justenough.views import Page, RequestView, ReviewView

router = APIRouter(route_class=AuthenticatedRoute, tags=["reviews"])


@router.get("/reviews")
def list_reviews(
    console: TheConsole,
    caller: Reader,
    every: Annotated[bool, Query(alias="all", description="Those that have been answered, too")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[ReviewView]:
    """List reviews of broken glass, newest first; open ones unless all are wanted."""
    del caller
    return console.deps.store.reviews(only_open=not every, limit=limit, cursor=cursor)


@router.post("/requests/{request}/review", operation_id="review_request", responses=answers(409, 412))
def review(request: str, body: SignedBody, console: TheConsole, caller: Approver) -> RequestView:
    """Say, signed, whether breaking glass was justified. The first answer stands."""
    deps = console.deps
    view = deps.store.request(request)
    if view is None or view.review is None:
        raise NotFound(f"nobody broke glass for a request {request}")
    job = deps.store.job(view.job_id)
    theirs = why_theirs(deps, caller, view, requester_id=job.requester_id if job else "")
    _must_be_entitled(caller, view.review, is_theirs=theirs is not None)
    _must_be_open(view.review)
    statement = _statement(deps, caller, view, body)
    told = event(
        EventType.REVIEW_ANSWERED,
        view.job_id,
        at=deps.now(),
        about=view.id,
        request=view.id,
        person=caller.person.id,
        name=caller.person.name,
        verdict=statement.verdict,
        reason=statement.reason,
        signed=body.signed().model_dump(mode="json"),
    )
    new = deps.store.record([told])
    found = deps.store.request(view.id)
    assert found is not None, "a request stays"
    assert found.review is not None, "and its review too"
    if not new:
        # Somebody else was faster.
        _must_be_open(found.review)
    return found


def _must_be_open(asked: ReviewView) -> None:
    if not asked.open:
        raise Conflict(f"{asked.reviewer} has answered this review already: {asked.verdict}")


def _must_be_entitled(caller: Caller, asked: ReviewView, *, is_theirs: bool) -> None:
    if is_theirs or caller.person.id == asked.person_id:
        raise Forbidden("neither who broke glass nor who launched the job, or one that it came of, reviews it")
    if caller.tier < max(asked.tiers):
        raise Forbidden(needs(answering_groups(max(asked.tiers), caller.tiers)))


def _statement(deps: Deps, caller: Caller, view: RequestView, body: SignedBody) -> ReviewStatement:
    statement = own(ReviewStatement, body, caller)
    if statement.digest != view.digest:
        raise Stale("the statement is for another digest than the request's")
    wrong = {
        "job": (statement.job != view.job_id, "is another job's"),
        "request": (statement.request != view.id, "is another request's"),
    }
    must_be_whole(deps, statement, body, wrong)
    return statement
