"""Builds the approval state of a request without answers. Counts nothing, records nothing."""

from __future__ import annotations

from datetime import datetime

from justenough.domain.approvals.ladder import Ladder
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import call_of


def ladder_for_request(
    request: str, terms: Access | RequestView, *, digest: str, needed: int, current: int, requester: str, respond_by: datetime
) -> Ladder:
    """Build the ladder of one request. `terms`: what is requested; `needed`: the tier by policy; `current`: the current tier."""
    call = terms.call if isinstance(terms, RequestView) else call_of(terms)
    return Ladder(
        request=request,
        digest=digest,
        action=Action(terms.action),
        requester=requester,
        needed=needed,
        current=current,
        respond_by=respond_by,
        ttl=terms.ttl,
        # A single call is approved with exactly its arguments, so there is nothing to bound.
        tools=None if call else terms.tools,
    )


def ladder_for_recorded_request(request: RequestView, *, requester: str, respond_by: datetime) -> Ladder:
    """Build the ladder of a request as it is recorded, at the tier that it has reached."""
    return ladder_for_request(
        request.id,
        request,
        digest=request.digest,
        requester=requester,
        needed=request.tier,
        current=max(request.tier, request.current_tier, 1),
        respond_by=respond_by,
    )
