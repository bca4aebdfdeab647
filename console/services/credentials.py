"""Credentials: list, show, revoke."""

from __future__ import annotations

from typing import NamedTuple

from anyio import to_thread

from console.auth.authorization import Caller
from console.services.console import Console
from console.services.visibility import MAX_PAGES_READ, first_visible_page
from console.temporal.client import WorkflowGone
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import CredentialView, Page

DEAD_STATES = {CredentialState.CONFIRMED, CredentialState.EXPIRED}


class CredentialQuery(NamedTuple):
    """Which credentials are wanted; None for whatever."""

    live: bool = False
    """Only those not yet shown to be dead."""
    job: str | None = None
    resource: str | None = None
    action: Action | None = None
    state: CredentialState | None = None


def credential_page(
    console: Console, caller: Caller, query: CredentialQuery, *, limit: int, cursor: str | None, max_pages: int = MAX_PAGES_READ
) -> Page[CredentialView]:
    """Return a page of the credentials that the caller may see, newest first. Blocking, for a thread."""

    def read(after: str | None) -> Page[CredentialView]:
        page = console.deps.store.credentials.list(**query._asdict(), limit=limit, cursor=after)
        if not caller.can_read_all:
            console.job_owners.preload(view.job_id for view in page.items)
        return page

    return first_visible_page(read, lambda view: console.job_owners.can_read(caller, view.job_id), cursor=cursor, max_pages=max_pages)


def visible_credential(console: Console, caller: Caller, credential: str) -> CredentialView:
    """Return a credential that the caller may see. Blocking, for a thread. Raises NotFound for others."""
    view = console.deps.store.credentials.get(credential)
    if view is None or not console.job_owners.can_read(caller, view.job_id):
        raise NotFound(f"there is no credential {credential}")
    return view


async def request_revocation(console: Console, caller: Caller, credential: str) -> CredentialView:
    """Ask for a credential to be ended, and record who asked; return it as it was. One that is dead already is left as it is."""
    view = await to_thread.run_sync(console.deps.store.credentials.get, credential)
    if view is None:
        raise NotFound(f"there is no credential {credential}")
    if view.state not in DEAD_STATES:
        await _revoke(console, view)
        asked = build_event(
            EventType.REVOCATION_REQUESTED,
            view.job_id,
            at=console.deps.now(),
            about=f"{credential}/{caller.person.id}",
            credential=credential,
            person=caller.person.id,
            name=caller.person.name,
        )
        await to_thread.run_sync(console.deps.store.ledger.append, [asked])
    return view


async def _revoke(console: Console, view: CredentialView) -> None:
    try:
        await console.gateway.revoke_credential(view.job_id, view.id)
    except WorkflowGone:
        # Its job is over, so whatever of it still lives is the sweep's.
        await console.gateway.start_sweep()
