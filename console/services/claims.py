"""Claims: an approver shows others that they are working on a request. Others can still decide it. Blocking, for a thread."""

from __future__ import annotations

from datetime import datetime, timedelta

from console.auth.authorization import Caller
from console.services.decide_request import ANSWERED_TEXT, find_request, has_answered, why_own_job
from justenough.domain.core.errors import Conflict, Forbidden
from justenough.domain.inbox.pending import claim_by_other
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import RequestView
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import event_of_person


def claim_request(deps: Deps, caller: Caller, request: str, *, seconds: int) -> RequestView:
    """Claim a pending request for the caller and return it. Claiming again extends the claim.

    Raises NotFound, Forbidden if they may not decide it, Conflict if they have decided it or while another person's claim lasts.
    """
    view, job = find_request(deps, request)
    _require_pending(view)
    if has_answered(view, caller.person.id):
        raise Conflict(ANSWERED_TEXT)
    if why := why_own_job(deps, caller, view, requester_id=job.requester_id):
        raise Forbidden(why)
    caller.require_tier(view.current_tier)
    until = deps.now() + timedelta(seconds=seconds)
    if claim := claim_by_other(view, caller.person.id, now=deps.now()):
        raise Conflict(f"claimed by {claim.by} until {claim.until:%Y-%m-%d %H:%M:%S} UTC; you can still decide it")
    return _record_claim(deps, caller, view, until=until)


def release_claim(deps: Deps, caller: Caller, request: str) -> RequestView:
    """End the caller's own claim of a pending request, and return the request. Raises NotFound, Conflict if the claim is not theirs."""
    view, _ = find_request(deps, request)
    _require_pending(view)
    if view.claim is None or view.claim.by_id != caller.person.id:
        raise Conflict("you have not claimed this request")
    return _record_claim(deps, caller, view, until=None)


def _require_pending(view: RequestView) -> None:
    if view.state is not RequestState.PENDING:
        raise Conflict(f"the request is {view.state.value}, not pending")


def _record_claim(deps: Deps, caller: Caller, view: RequestView, *, until: datetime | None) -> RequestView:
    now, person = deps.now(), caller.person
    about, lasts_until = f"{view.id}/{person.id}/{now.timestamp():.3f}", until.isoformat() if until else None
    claimed = event_of_person(person, EventType.APPROVAL_CLAIMED, view.job_id, at=now, about=about, request=view.id, until=lasts_until)
    deps.store.ledger.append([claimed])
    updated = deps.store.requests.get(view.id)
    assert updated is not None, "requests are never deleted"
    return updated
