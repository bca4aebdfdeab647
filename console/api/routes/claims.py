"""Claims of requests. A claim keeps nobody from deciding; it only tells the others."""

from __future__ import annotations

from fastapi import APIRouter

from console.api.dependencies import Approver, AuthenticatedRoute
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services import claims
from console.services.inputs import ClaimBody
from justenough.domain.readmodel.views import RequestView

router = APIRouter(route_class=AuthenticatedRoute, tags=["requests"])


@router.post("/requests/{request}/claim", operation_id="claim_request", responses=problem_responses(409))
def claim(request: str, console: TheConsole, caller: Approver, body: ClaimBody | None = None) -> RequestView:
    """Claim a request, so that others know you are working on it. Claiming again prolongs the claim."""
    return claims.claim_request(console.deps, caller, request, seconds=(body or ClaimBody()).seconds)


@router.delete("/requests/{request}/claim", operation_id="release_request", responses=problem_responses(409))
def release(request: str, console: TheConsole, caller: Approver) -> RequestView:
    """Release your claim of a request."""
    return claims.release_claim(console.deps, caller, request)
