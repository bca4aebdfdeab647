"""Reviews of break-glass approvals by the approvers who were bypassed. Blocking, for a thread."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from console.api.dependencies import Approver, AuthenticatedRoute, Reader
from console.http.dependencies import Cursor, Limit, TheConsole
from console.http.problems import problem_responses
from console.services.inputs import SignedBody
from console.services.reviews import submit_review
from justenough.domain.readmodel.views import Page, RequestView, ReviewView

router = APIRouter(route_class=AuthenticatedRoute, tags=["reviews"])


@router.get("/reviews")
def list_reviews(
    console: TheConsole,
    _: Reader,
    every: Annotated[bool, Query(alias="all", description="Include reviews that have been answered")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[ReviewView]:
    """List reviews of break-glass approvals, newest first; by default only open ones."""
    return console.deps.store.reviews.list(only_open=not every, limit=limit, cursor=cursor)


@router.post("/requests/{request}/review", operation_id="review_request", responses=problem_responses(409, 412))
def review(request: str, body: SignedBody, console: TheConsole, caller: Approver) -> RequestView:
    """Review a break-glass approval with a signed statement. Only the first review counts."""
    return submit_review(console.deps, caller, request, body)
