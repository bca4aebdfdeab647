"""Who answers for whom until when. A delegate answers at the tier of whoever is away by their own groups: naming one widens nobody's rights."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from activities.deps import Deps
from console.api.bodies import PersonView, SignedBody
from console.api.context import Approver, AuthenticatedRoute, Reader, TheConsole
from console.api.lists import Cursor, Limit
from console.api.rights import Caller, answering_groups
from console.api.signed import must_be_whole, own
from console.problems import answers
from justenough.approval import Person
from justenough.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem
from justenough.events import UNATTRIBUTED, EventType, event
from justenough.statements import DelegationStatement, digest_of, rfc3339
from justenough.views import DelegationView, Page

router = APIRouter(route_class=AuthenticatedRoute, tags=["delegations"])


@router.get("/people/{name}")
def find_person(name: Annotated[str, Path(description="A login name")], console: TheConsole, caller: Approver) -> PersonView:
    """Find an approver by login name, on the mounts where the caller has a login."""
    found = console.deps.vault.person_named(name, like=caller.person.id, people_mounts=console.deps.settings.people_mounts)
    tier = caller.tiers.tier_of(found.groups) if found else 0
    if found is None or not tier:
        raise NotFound(f"there is no approver {name}")
    return PersonView(id=found.id, name=found.name, tier=tier)


@router.get("/delegations")
def list_delegations(console: TheConsole, caller: Reader, limit: Limit = 100, cursor: Cursor = None) -> Page[DelegationView]:
    """List delegations, newest first."""
    del caller
    return console.deps.store.delegations(limit=limit, cursor=cursor)


@router.post("/delegations")
def delegate(body: SignedBody, console: TheConsole, caller: Approver) -> DelegationView:
    """Name, signed, who answers for you until the statement expires. The same again is the same delegation."""
    deps = console.deps
    statement = _statement(deps, caller, body)
    other = _delegate(deps, caller, statement)
    name = f"d-{digest_of(body.statement).removeprefix('sha256:')[:24]}"
    told = event(
        EventType.DELEGATION_MADE,
        UNATTRIBUTED,
        at=deps.now(),
        about=name,
        delegation=name,
        person=caller.person.id,
        name=caller.person.name,
        delegate=other.id,
        delegate_name=other.name,
        until=rfc3339(statement.expires_at),
        reason=statement.reason,
        signed=body.signed().model_dump(mode="json"),
    )
    deps.store.record([told])
    return _view(deps, name)


@router.delete("/delegations/{delegation}", operation_id="end_delegation", responses=answers(409))
def end(delegation: str, console: TheConsole, caller: Approver) -> DelegationView:
    """Answer for yourself again."""
    view = _view(console.deps, delegation)
    if view.person_id != caller.person.id:
        raise Forbidden("only who named a delegate ends it")
    if view.ended_at:
        raise Conflict("it has been ended already")
    person = caller.person
    told = event(
        EventType.DELEGATION_ENDED,
        UNATTRIBUTED,
        at=console.deps.now(),
        about=delegation,
        delegation=delegation,
        person=person.id,
        name=person.name,
    )
    console.deps.store.record([told])
    return _view(console.deps, delegation)


def _view(deps: Deps, name: str) -> DelegationView:
    view = deps.store.delegation_view(name)
    if view is None:
        raise NotFound(f"there is no delegation {name}")
    return view


def _statement(deps: Deps, caller: Caller, body: SignedBody) -> DelegationStatement:
    statement = own(DelegationStatement, body, caller)
    must_be_whole(deps, statement, body, {"delegate": (statement.delegate == caller.person.id, "is yourself")})
    return statement


def _delegate(deps: Deps, caller: Caller, statement: DelegationStatement) -> Person:
    other = deps.vault.person(statement.delegate, deps.settings.people_mounts)
    if other is None:
        raise InvalidInput("delegation", (Problem("statement.delegate", "is no person here"),))
    if caller.tiers.tier_of(other.groups) < caller.tier:
        groups = ", ".join(sorted(answering_groups(caller.tier, caller.tiers)))
        message = f"{other.name} does not answer at your tier {caller.tier}: a delegate is in one of the groups {groups}"
        raise InvalidInput("delegation", (Problem("statement.delegate", message),))
    return other
