"""Credentials: handles of what was issued, and taking one away."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from anyio import fail_after, sleep, to_thread
from fastapi import APIRouter, Query, Response

from console.api.context import AuthenticatedRoute, Console, Member, Stopper, TheConsole
from console.api.lists import MAX_LOOKS, Cursor, Limit, narrowed
from console.api.rights import Caller
from console.gateway import WorkflowGone
from justenough.access import Action, CredentialState
from justenough.errors import NotFound
from justenough.events import EventType, event
from justenough.views import CredentialView, Page

CONFIRMED_WITHIN = 20.0
"""Seconds to wait for a revocation to be confirmed, or shown as overdue: Vault takes up to 10 for a target that hangs, and so does the look."""
LOOK_EVERY = 0.02
DEAD = {CredentialState.CONFIRMED, CredentialState.EXPIRED}


class Wanted(NamedTuple):
    """Which credentials are wanted; None for whatever."""

    live: bool = False
    """Only those not yet shown to be dead."""
    job: str | None = None
    resource: str | None = None
    action: Action | None = None
    state: CredentialState | None = None


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
    which = Wanted(live=live, job=job, resource=resource, action=action, state=state)
    return listed(console, caller, which, limit=limit, cursor=cursor)


@router.get("/credentials/{credential}")
def show_credential(credential: str, console: TheConsole, caller: Member) -> CredentialView:
    """Show a credential's handle; the secret is nowhere to be shown."""
    return shown(console, caller, credential)


@router.post(
    "/credentials/{credential}/revoke",
    responses={202: {"model": CredentialView, "description": "On its way; not yet confirmed dead"}},
)
async def revoke_credential(credential: str, response: Response, console: TheConsole, caller: Stopper) -> CredentialView:
    """End one credential now; its job goes on. Ended already: answered as it is."""
    view = await ended(console, caller, credential)
    if view.state not in DEAD:
        view = await _confirmed(console, view)
    response.status_code = 200 if view.state in DEAD else 202
    return view


def listed(
    console: Console, caller: Caller, which: Wanted, *, limit: int, cursor: str | None, looks: int = MAX_LOOKS
) -> Page[CredentialView]:
    """Return a page of the credentials that the caller may see, newest first. Blocking, for a thread."""

    def read(after: str | None) -> Page[CredentialView]:
        page = console.deps.store.credentials(**which._asdict(), limit=limit, cursor=after)
        if not caller.reads_all:
            console.owners.learn(view.job_id for view in page.items)
        return page

    return narrowed(read, lambda view: console.owners.readable(caller, view.job_id), cursor=cursor, looks=looks)


def shown(console: Console, caller: Caller, credential: str) -> CredentialView:
    """Return a credential that the caller may see. Blocking, for a thread. Raises NotFound for others."""
    view = console.deps.store.credential(credential)
    if view is None or not console.owners.readable(caller, view.job_id):
        raise NotFound(f"there is no credential {credential}")
    return view


async def ended(console: Console, caller: Caller, credential: str) -> CredentialView:
    """Ask for a credential to be ended, and record who asked; return it as it was. One that is dead already is left as it is."""
    view = await to_thread.run_sync(console.deps.store.credential, credential)
    if view is None:
        raise NotFound(f"there is no credential {credential}")
    if view.state not in DEAD:
        await _revoke(console, view)
        asked = event(
            EventType.REVOCATION_REQUESTED,
            view.job_id,
            at=console.deps.now(),
            about=f"{credential}/{caller.person.id}",
            credential=credential,
            person=caller.person.id,
            name=caller.person.name,
        )
        await to_thread.run_sync(console.deps.store.record, [asked])
    return view


async def _revoke(console: Console, view: CredentialView) -> None:
    try:
        await console.gateway.revoke_credential(view.job_id, view.id)
    except WorkflowGone:
        # Its job is over, so whatever of it still lives is the sweep's.
        await console.gateway.start_sweep()


async def _confirmed(console: Console, view: CredentialView) -> CredentialView:
    try:
        with fail_after(CONFIRMED_WITHIN):
            told = view.state, view.why
            while view.state not in DEAD and (view.state is not CredentialState.OVERDUE or (view.state, view.why) == told):
                await sleep(LOOK_EVERY)
                found = await to_thread.run_sync(console.deps.store.credential, view.id)
                view = view if found is None else found
    except TimeoutError:
        pass
    return view
