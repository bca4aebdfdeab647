"""Credentials: handles of what was issued, and taking one away."""

from __future__ import annotations

from typing import Annotated

from anyio import fail_after, sleep, to_thread
from fastapi import APIRouter, Query, Response

from console.api.dependencies import AuthenticatedRoute, Member, Stopper
from console.http.dependencies import TheConsole
from console.http.pagination import Cursor, Limit
from console.services.console import Console
from console.services.credentials import DEAD_STATES, CredentialQuery, credential_page, request_revocation, visible_credential
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.readmodel.views import CredentialView, Page

CONFIRM_TIMEOUT_S = 20.0
"""Seconds to wait for a revocation to be confirmed, or shown as overdue: Vault takes up to 10 for a target that hangs, and so does the look."""


POLL_INTERVAL_S = 0.02


router = APIRouter(route_class=AuthenticatedRoute, tags=["credentials"])


@router.get("/credentials")
def list_credentials(
    console: TheConsole,
    caller: Member,
    *,
    live: Annotated[bool, Query(description="Only those not yet shown to be dead")] = False,
    job: Annotated[str | None, Query(max_length=64, description="Only this job's")] = None,
    resource: Annotated[str | None, Query(max_length=63, description="Only those of this resource")] = None,
    action: Annotated[Action | None, Query(description="Only those for this action")] = None,
    state: Annotated[CredentialState | None, Query(description="Only those in this state")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[CredentialView]:
    """List credentials, newest first; a launcher sees those of their own jobs."""
    which = CredentialQuery(live=live, job=job, resource=resource, action=action, state=state)
    return credential_page(console, caller, which, limit=limit, cursor=cursor)


@router.get("/credentials/{credential}")
def show_credential(credential: str, console: TheConsole, caller: Member) -> CredentialView:
    """Show a credential's handle; the secret is nowhere to be shown."""
    return visible_credential(console, caller, credential)


@router.post(
    "/credentials/{credential}/revoke",
    responses={202: {"model": CredentialView, "description": "On its way; not yet confirmed dead"}},
)
async def revoke_credential(credential: str, response: Response, console: TheConsole, caller: Stopper) -> CredentialView:
    """End one credential now; its job goes on. Ended already: answered as it is."""
    view = await request_revocation(console, caller, credential)
    if view.state not in DEAD_STATES:
        view = await _wait_until_confirmed(console, view)
    response.status_code = 200 if view.state in DEAD_STATES else 202
    return view


async def _wait_until_confirmed(console: Console, view: CredentialView) -> CredentialView:
    try:
        with fail_after(CONFIRM_TIMEOUT_S):
            told = view.state, view.why
            while view.state not in DEAD_STATES and (view.state is not CredentialState.OVERDUE or (view.state, view.why) == told):
                await sleep(POLL_INTERVAL_S)
                found = await to_thread.run_sync(console.deps.store.credentials.get, view.id)
                view = view if found is None else found
    except TimeoutError:
        pass
    return view
