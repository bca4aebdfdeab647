"""Credentials: their handles, and revoking one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from console.api.dependencies import AuthenticatedRoute, Member, Stopper
from console.http.dependencies import Cursor, IdBeginning, Limit, TheConsole
from console.services.credentials import credential_page, request_revocation, visible_credential, wait_until_confirmed
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.readmodel.views import CredentialFilters, CredentialView, Page

router = APIRouter(route_class=AuthenticatedRoute, tags=["credentials"])


@router.get("/credentials")
def list_credentials(
    console: TheConsole,
    caller: Member,
    *,
    live: Annotated[bool, Query(description="Only credentials that are not yet known to be dead")] = False,
    job: Annotated[str | None, Query(max_length=64, description="Only credentials of this job")] = None,
    resource: Annotated[str | None, Query(max_length=63, description="Only credentials of this resource")] = None,
    action: Annotated[Action | None, Query(description="Only credentials for this action")] = None,
    state: Annotated[CredentialState | None, Query(description="Only credentials in this state")] = None,
    beginning: IdBeginning = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[CredentialView]:
    """List credentials, newest first. A launcher sees only those of their own jobs."""
    which = CredentialFilters(live=live, job=job, resource=resource, action=action, state=state, beginning=beginning)
    return credential_page(console, caller, which, limit=limit, cursor=cursor)


@router.get("/credentials/{credential}")
def show_credential(credential: str, console: TheConsole, caller: Member) -> CredentialView:
    """Show a credential's handle. The secret is not stored anywhere."""
    return visible_credential(console, caller, credential)


@router.post(
    "/credentials/{credential}/revoke",
    responses={202: {"model": CredentialView, "description": "Revocation has been requested and is not confirmed yet"}},
)
async def revoke_credential(credential: str, response: Response, console: TheConsole, caller: Stopper) -> CredentialView:
    """Revoke one credential now; its job continues. A credential that is already revoked or expired, or that cannot be revoked early, is
    returned unchanged.
    """
    view = await request_revocation(console, caller, credential)
    if not view.state.is_settled:
        view = await wait_until_confirmed(console.deps, view)
    response.status_code = 200 if view.state.is_settled else 202
    return view
