"""Delegations: who decides for whom until when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from console.api.dependencies import Approver, AuthenticatedRoute, Reader
from console.http.dependencies import Cursor, Limit, TheConsole
from console.http.problems import problem_responses
from console.services.delegations import PersonView, create_delegation, end_delegation, find_approver
from console.services.inputs import SignedBody
from justenough.domain.readmodel.views import DelegationView, Page

router = APIRouter(route_class=AuthenticatedRoute, tags=["delegations"])


@router.get("/people/{name:path}")
def find_person(name: Annotated[str, Path(description="A login name")], console: TheConsole, caller: Approver) -> PersonView:
    """Find an approver by login name, on the mounts where the caller has a login."""
    return find_approver(console.deps, caller, name)


@router.get("/delegations")
def list_delegations(console: TheConsole, _: Reader, limit: Limit = 100, cursor: Cursor = None) -> Page[DelegationView]:
    """List delegations, newest first."""
    return console.deps.store.delegations.list(limit=limit, cursor=cursor)


@router.post("/delegations")
def delegate(body: SignedBody, console: TheConsole, caller: Approver) -> DelegationView:
    """Name the person who decides for you until the signed statement expires. Sending the same statement again creates no second
    delegation.
    """
    return create_delegation(console.deps, caller, body)


@router.delete("/delegations/{delegation}", operation_id="end_delegation", responses=problem_responses(409))
def end(delegation: str, console: TheConsole, caller: Approver) -> DelegationView:
    """End one of your delegations."""
    return end_delegation(console.deps, caller, delegation)
