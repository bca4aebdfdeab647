"""After-reviews: what those who were passed over think of a tier that somebody passed alone. Blocking, for a thread."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from console.api.dependencies import Approver, AuthenticatedRoute, Reader
from console.http.dependencies import TheConsole
from console.http.pagination import Cursor, Limit
from console.http.problems import problem_responses
from console.services.inputs import SignedBody
from console.services.reviews import submit_review
from justenough.domain.readmodel.views import Page, RequestView, ReviewView

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
    return console.deps.store.reviews.list(only_open=not every, limit=limit, cursor=cursor)


@router.post("/requests/{request}/review", operation_id="review_request", responses=problem_responses(409, 412))
def review(request: str, body: SignedBody, console: TheConsole, caller: Approver) -> RequestView:
    """Say, signed, whether breaking glass was justified. The first answer stands."""
    return submit_review(console.deps, caller, request, body)
