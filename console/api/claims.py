"""Marking a request as being looked at. It bars nobody from answering; it only tells the others."""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import APIRouter

from activities.deps import Deps
from console.api.bodies import ClaimBody
from console.api.context import Approver, AuthenticatedRoute, TheConsole
from console.api.deciding import answerable, why_theirs
from console.api.rights import Caller, answering_groups, needs
from console.problems import answers
from justenough.access import RequestState
from justenough.errors import Conflict, Forbidden, NotFound
from justenough.events import EventType, event
from justenough.views import RequestView

router = APIRouter(route_class=AuthenticatedRoute, tags=["requests"])


@router.post("/requests/{request}/claim", operation_id="claim_request", responses=answers(409))
def claim(request: str, console: TheConsole, caller: Approver, body: ClaimBody | None = None) -> RequestView:
    """Say that you look at a request, so that others need not. Again prolongs it."""
    deps, view = console.deps, _for(console.deps, caller, request)
    until = deps.now() + timedelta(seconds=(body or ClaimBody()).seconds)
    if view.claim and view.claim.by_id != caller.person.id and view.claim.until > deps.now():
        raise Conflict(f"{view.claim.by} looks at it until {view.claim.until:%Y-%m-%d %H:%M:%S} UTC; you may answer it all the same")
    return _recorded(deps, caller, view, until)


@router.delete("/requests/{request}/claim", operation_id="release_request", responses=answers(409))
def release(request: str, console: TheConsole, caller: Approver) -> RequestView:
    """Say that you no longer look at a request."""
    view = _for(console.deps, caller, request)
    if view.claim is None or view.claim.by_id != caller.person.id:
        raise Conflict("you do not look at it")
    return _recorded(console.deps, caller, view, None)


def _for(deps: Deps, caller: Caller, request: str) -> RequestView:
    view = deps.store.request(request)
    job = deps.store.job(view.job_id) if view else None
    if view is None or job is None:
        raise NotFound(f"there is no request {request}")
    if view.state is not RequestState.PENDING:
        raise Conflict(f"the request is {view.state.value}, not pending")
    if not answerable(deps, caller, view, requester_id=job.requester_id):
        why = why_theirs(deps, caller, view, requester_id=job.requester_id)
        raise Forbidden(why or needs(answering_groups(view.current_tier, caller.tiers)))
    return view


def _recorded(deps: Deps, caller: Caller, view: RequestView, until: datetime | None) -> RequestView:
    now, person = deps.now(), caller.person
    told = event(
        EventType.APPROVAL_CLAIMED,
        view.job_id,
        at=now,
        about=f"{view.id}/{person.id}/{now.timestamp():.3f}",
        request=view.id,
        person=person.id,
        name=person.name,
        until=until.isoformat() if until else None,
    )
    deps.store.record([told])
    found = deps.store.request(view.id)
    assert found is not None, "a request stays"
    return found
