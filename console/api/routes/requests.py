"""Requests for access: list, show, decide and claim them, and review break-glass approvals."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from console.api.dependencies import Approver, AuthenticatedRoute, Member, Reader, Stopper
from console.http.dependencies import Cursor, IdBeginning, Limit, TheConsole
from console.http.problems import problem_responses
from console.services.claims import claim_request, release_claim
from console.services.decide_request import submit_decision, validate_decision, why_cannot_answer, withdraw_unsigned
from console.services.inputs import ClaimBody, SignedBody, WithdrawBody
from console.services.policy_reasons import with_policy_reasons
from console.services.reviews import submit_review
from console.services.visibility import first_visible_page, visible_request
from justenough.domain.inbox.pending import timeout_outcome
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import Page, RequestView, ReviewView
from justenough.services.parent_chain import ancestor_views

router = APIRouter(route_class=AuthenticatedRoute)

IfMatch = Annotated[
    str | None, Header(max_length=200, description="Digest of the request that is decided", json_schema_extra={"pattern": r"\S"})
]


class Wanted(StrEnum):
    PENDING = "pending"
    ALLOWED = "allowed"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ALL = "all"

    @property
    def state(self) -> RequestState | None:
        """The state to filter by; None for any."""
        return None if self is Wanted.ALL else RequestState(self.value)


@router.get("/requests", tags=["requests"])
def list_requests(
    console: TheConsole,
    caller: Member,
    *,
    state: Annotated[Wanted, Query(description="Only requests in this state")] = Wanted.PENDING,
    mine: Annotated[bool, Query(description="Only requests that the caller can decide now")] = False,
    job: Annotated[str | None, Query(max_length=64, description="Only requests of this job")] = None,
    resource: Annotated[str | None, Query(max_length=63, description="Only requests for this resource")] = None,
    beginning: IdBeginning = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[RequestView]:
    """List requests, newest first. A launcher sees only those of their own jobs."""
    store, owners = console.deps.store, console.job_owners

    def is_visible(view: RequestView) -> bool:
        if resource is not None and view.resource != resource:
            return False
        if not mine:
            return True
        # Up to thousands of requests are checked: read no order and no ancestors of those above the caller's tier.
        if caller.tier < view.current_tier:
            return False
        return not why_cannot_answer(console.deps, caller, view, requester_id=owners.owner_of(view.job_id) or "")

    return first_visible_page(
        lambda after: store.requests.list(
            state=state.state, job=job, requester_id=caller.requester_filter, beginning=beginning, limit=limit, cursor=after
        ),
        lambda views: filter(is_visible, views),
        cursor=cursor,
    )


@router.get(
    "/requests/{request}",
    tags=["requests"],
    responses={
        200: {"headers": {"ETag": {"schema": {"type": "string"}, "description": "The digest that a decision must name, if there is one"}}}
    },
)
def show_request(request: str, response: Response, console: TheConsole, caller: Member) -> RequestView:
    """Show a request. Its ETag is the digest that a decision must name."""
    view = with_policy_reasons(console.deps, visible_request(console.deps.store, console.job_owners, caller, request))
    if view.digest:
        response.headers["ETag"] = f'"{view.digest}"'
    if view.state is RequestState.PENDING:
        tiers = console.deps.config.current().tiers
        tier = tiers.tiers.get(view.current_tier)
        view = view.model_copy(update={"approvers": tier.approvers if tier else (), "escalates_to": timeout_outcome(view, tiers).climbs_to})
    return view.model_copy(update={"chain": ancestor_views(console.deps, view.parent)})


@router.post(
    "/requests/{request}/decisions",
    tags=["requests"],
    responses={
        202: {"model": RequestView, "description": "Delivered to the job, but not counted by a worker yet"},
        **problem_responses(409, 412, 428),
    },
    operation_id="decide_request",
)
async def decide(
    request: str,
    body: SignedBody,
    response: Response,
    console: TheConsole,
    caller: Member,
    if_match: IfMatch = None,
) -> RequestView:
    """Decide a request with a signed statement."""
    view, counted = await submit_decision(console, caller, request, body, if_match=if_match)
    response.status_code = 200 if counted else 202
    return view


@router.post(
    "/requests/{request}/decisions/check", tags=["requests"], operation_id="check_decision", responses=problem_responses(409, 412, 428)
)
def check_decision(request: str, body: SignedBody, console: TheConsole, caller: Member, if_match: IfMatch = None) -> RequestView:
    """Check whether a signed decision is valid now, without sending it. Refusals are recorded as if it had been sent. Authorize a request in
    Vault only after that: an authorization cannot be withdrawn.
    """
    return validate_decision(console.deps, caller, request, body, if_match=if_match)


@router.post("/requests/{request}/withdraw", tags=["requests"], operation_id="withdraw_request", responses=problem_responses(409))
def withdraw(request: str, body: WithdrawBody, console: TheConsole, caller: Stopper) -> RequestView:
    """Withdraw an approval without a signature, while Vault does not answer; its credentials are revoked once Vault does. Otherwise, send a
    signed decision. A launcher can withdraw only approvals of their own jobs.
    """
    return withdraw_unsigned(console, caller, request, body.reason)


@router.post("/requests/{request}/claim", tags=["requests"], operation_id="claim_request", responses=problem_responses(409))
def claim(request: str, console: TheConsole, caller: Approver, body: ClaimBody | None = None) -> RequestView:
    """Claim a request, so that others know you are working on it. Claiming again prolongs the claim."""
    return claim_request(console.deps, caller, request, seconds=(body or ClaimBody()).seconds)


@router.delete("/requests/{request}/claim", tags=["requests"], operation_id="release_request", responses=problem_responses(409))
def release(request: str, console: TheConsole, caller: Approver) -> RequestView:
    """Release your claim of a request."""
    return release_claim(console.deps, caller, request)


@router.get("/reviews", tags=["reviews"])
def list_reviews(
    console: TheConsole,
    _: Reader,
    every: Annotated[bool, Query(alias="all", description="Include reviews that have been answered")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[ReviewView]:
    """List reviews of break-glass approvals, newest first; by default only open ones."""
    return console.deps.store.reviews.list(only_open=not every, limit=limit, cursor=cursor)


@router.post("/requests/{request}/review", tags=["reviews"], operation_id="review_request", responses=problem_responses(409, 412))
def review(request: str, body: SignedBody, console: TheConsole, caller: Approver) -> RequestView:
    """Review a break-glass approval with a signed statement. Only the first review counts."""
    return submit_review(console.deps, caller, request, body)
