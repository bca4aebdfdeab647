"""GET /credentials and one of them: what is alive, its story in words, its proof; POST revoke and prove. No secret exists here to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from console.auth.authorization import Role, groups_with_role, missing_group_text
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.page_user import PageUser, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.credentials import CredentialQuery, credential_page, request_revocation, visible_credential
from justenough.adapters.store import JobCaption
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialView, EntryView

PAGE_SIZE = 50
MAX_PAGES_READ = 6
"""Pages that are read through to find something of a launcher's: a page waits no longer than that."""
STOPPER_ROLES = (Role.LAUNCH, Role.APPROVE)
"""Who may take a credential away, as the API says."""
CREDENTIAL_EVENTS = (
    EventType.CREDENTIAL_ISSUED,
    EventType.CREDENTIAL_DOUBTED,
    EventType.CREDENTIAL_RENEWED,
    EventType.CREDENTIAL_USED,
    EventType.REVOCATION_REQUESTED,
    EventType.CREDENTIAL_REVOKED,
    EventType.CREDENTIAL_OVERDUE,
    EventType.CREDENTIAL_CONFIRMED,
    EventType.CREDENTIAL_EXPIRED,
)
"""What the ledger says of one credential alone."""
JOB_REVOCATION_EVENTS = (EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.REVOCATION_CONFIRMED)
"""What it says of everything that a job held."""


class CredentialFilters(Message):
    """What the address asks for; empty for whatever."""

    show: Literal["", "all"] = ""
    resource: str = Field("", max_length=63)
    action: Literal[""] | Action = ""
    state: Literal[""] | CredentialState = ""
    job: str = Field("", max_length=64)
    cursor: str | None = Field(None, max_length=200)

    def to_query(self) -> CredentialQuery:
        """Return it as the store takes it. Who names a state wants those that are dead, too, where it is one of theirs."""
        return CredentialQuery(
            live=not self.show and not self.state,
            job=self.job.strip() or None,
            resource=self.resource or None,
            action=self.action or None,
            state=self.state or None,
        )


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credentials")
def credentials(request: Request, console: TheConsole, visitor: ThePageUser, filters: Annotated[CredentialFilters, Query()]) -> Response:
    """List credentials, those that are alive unless all are wanted."""
    visitor.caller.require(*Role)
    stream = live_stream.stream_url(console, topics="credential,revocation")
    which = filters.to_query()
    page = credential_page(console, visitor.caller, which, limit=PAGE_SIZE, cursor=filters.cursor, max_pages=MAX_PAGES_READ)
    return render(
        request,
        "credentials.html",
        page=page,
        jobs=console.deps.store.jobs.captions({view.job_id for view in page.items}),
        which=which,
        filtered=any(which[1:]),
        resources=_resource_choices(console, filters.resource),
        actions=tuple(Action),
        states=tuple(CredentialState),
        stream=stream,
        refresh=30,
    )


@router.get("/credentials/{credential}")
def credential(request: Request, credential: str, console: TheConsole, visitor: ThePageUser) -> Response:
    """Show one credential: its handle, how it can be ended, what happened to it."""
    visitor.caller.require(*Role)
    stream = live_stream.stream_url(console, topics="credential,revocation")
    view = visible_credential(console, visitor.caller, credential)
    story = _credential_entries(console, view)
    asked = _last_revocation_request(view, story)
    proof = console.background_reads.proofs.get(view.job_id)
    return render(
        request,
        "credential.html",
        view=view,
        story=story,
        job=_job(console.deps.store.jobs.captions({view.job_id}), view),
        asked=asked,
        dead=view.state.is_dead,
        may_stop=bool(visitor.caller.roles & set(STOPPER_ROLES)),
        stoppers=missing_group_text(group for role in STOPPER_ROLES for group in groups_with_role(role, visitor.caller.tiers)),
        proof=proof,
        stream=stream,
        # Without JavaScript a page with forms is not fetched again by itself, unless something is on its way.
        refresh=5 if (proof and proof.runs) or asked else 0,
    )


@router.post("/credentials/{credential}/revoke")
async def revoke(credential: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Take one credential away; its job goes on. The page shows how it ends."""
    del form
    visitor.caller.require(*STOPPER_ROLES)
    view = await request_revocation(console, visitor.caller, credential)
    return RedirectResponse(f"/credentials/{view.id}" if await _can_read(console, visitor, view) else "/credentials", status_code=303)


@router.post("/credentials/{credential}/prove")
async def prove(credential: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Look anew at everything that its job held."""
    del form
    visitor.caller.require(*Role)
    view = await to_thread.run_sync(visible_credential, console, visitor.caller, credential)
    console.background_reads.proofs.start(view.job_id, by=visitor.caller.person.name)
    return RedirectResponse(f"/credentials/{view.id}#proof", status_code=303)


async def _can_read(console: Console, visitor: PageUser, view: CredentialView) -> bool:
    return await to_thread.run_sync(console.job_owners.can_read, visitor.caller, view.job_id)


def _resource_choices(console: Console, chosen: str) -> Sequence[str]:
    """Return the resources to choose from; one that the catalog no longer has stays choosable where it was chosen."""
    known = list(console.deps.config.current().catalog.resources)
    return known if not chosen or chosen in known else [chosen, *known]


def _credential_entries(console: Console, view: CredentialView) -> Sequence[EntryView]:
    store = console.deps.store
    whole = store.ledger.entries(job=view.job_id, types=JOB_REVOCATION_EVENTS, limit=50).items
    return sorted([*store.ledger.entries_about(view.job_id, CREDENTIAL_EVENTS, view.id), *whole], key=lambda entry: entry.seq)


def _last_revocation_request(view: CredentialView, story: Sequence[EntryView]) -> EntryView | None:
    """Return who asked last for the end of what is not dead yet."""
    asked = [entry for entry in story if entry.type == EventType.REVOCATION_REQUESTED]
    return asked[-1] if asked and not view.state.is_dead else None


def _job(known: Mapping[str, JobCaption], view: CredentialView) -> JobCaption | None:
    return known.get(view.job_id)
