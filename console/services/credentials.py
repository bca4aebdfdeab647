"""Credentials: list, show, revoke."""

from __future__ import annotations

from typing import NamedTuple

from anyio import to_thread

from console.auth.authorization import Caller
from console.services.console import Console
from console.services.visibility import MAX_LOOKS, narrowed
from console.temporal.client import WorkflowGone
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.ledger.events import EventType, event
from justenough.domain.readmodel.views import CredentialView, Page

DEAD = {CredentialState.CONFIRMED, CredentialState.EXPIRED}


class Wanted(NamedTuple):
    """Which credentials are wanted; None for whatever."""

    live: bool = False
    """Only those not yet shown to be dead."""
    job: str | None = None
    resource: str | None = None
    action: Action | None = None
    state: CredentialState | None = None


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
