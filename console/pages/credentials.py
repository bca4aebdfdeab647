"""GET /credentials and /credentials/{id}: list, history and verification; POST revoke and prove. The console holds no secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.file_export import ExportFormat, export_response
from console.pages.ledger import MAX_PAGES_READ
from console.pages.page_user import PageMember, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.status_badges import status_badge
from console.services.credentials import credential_page, endless_credentials, request_revocation, visible_credential
from justenough.adapters.store.paging import MAX_PAGE_SIZE, iterate_pages
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialFilters, CredentialView

PAGE_SIZE = 50
CREDENTIAL_EVENTS = (*(one for one in EventType if one.value.startswith("credential.")), EventType.REVOCATION_REQUESTED)
"""Ledger events about one credential."""
JOB_REVOCATION_EVENTS = (EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.REVOCATION_CONFIRMED)
"""Ledger events about all access of a job."""


class CredentialListFilters(Message):
    """The filters in the page's address; an empty filter matches everything."""

    show: Literal["", "all"] = ""
    resource: str = Field("", max_length=63)
    action: Literal[""] | Action = ""
    state: Literal[""] | CredentialState = ""
    job: str = Field("", max_length=64)
    cursor: str | None = Field(None, max_length=200)

    def to_filters(self) -> CredentialFilters:
        """Return what the store filters by. A chosen state also shows credentials that are no longer active."""
        return CredentialFilters(
            live=not self.show and not self.state,
            job=self.job.strip() or None,
            resource=self.resource or None,
            action=self.action or None,
            state=self.state or None,
        )


class CredentialExport(CredentialListFilters):
    format: ExportFormat = "csv"


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credentials")
def credentials(request: Request, console: TheConsole, visitor: PageMember, filters: Annotated[CredentialListFilters, Query()]) -> Response:
    """List credentials; only active ones by default."""
    stream = live_stream.stream_url(console, topics="credential,revocation")
    which, catalog = filters.to_filters(), console.deps.config.current().catalog.resources
    page = credential_page(console, visitor.caller, which, limit=PAGE_SIZE, cursor=filters.cursor, max_pages=MAX_PAGES_READ)
    return render(
        request,
        "credentials.html",
        page=page,
        jobs=console.deps.store.jobs.captions({view.job_id for view in page.items}),
        which=which,
        endless=endless_credentials(console, visitor.caller, which, limit=MAX_PAGE_SIZE) if which["live"] else None,
        filtered=any(value for name, value in which.items() if name != "live"),
        exported={name: value for name, value in filters if value and name != "cursor"},
        # A chosen resource stays in the list even if the catalog no longer has it.
        resources=dict.fromkeys([filters.resource, *catalog] if filters.resource and filters.resource not in catalog else catalog),
        actions=tuple(Action),
        states=[(state.value, status_badge("credential", state).word) for state in CredentialState],
        stream=stream,
        refresh=30,
    )


@router.get("/credentials/export")
def export(console: TheConsole, visitor: PageMember, query: Annotated[CredentialExport, Query()]) -> Response:
    """Return the matching credentials as CSV or JSON, newest first."""
    which = query.to_filters()
    views = iterate_pages(lambda cursor: credential_page(console, visitor.caller, which, limit=MAX_PAGE_SIZE, cursor=cursor))
    return export_response(console, "credentials", views, CredentialView, query.format)


@router.get("/credentials/{credential}")
def credential(request: Request, credential: str, console: TheConsole, visitor: PageMember) -> Response:
    stream = live_stream.stream_url(console, topics="credential,revocation")
    view = visible_credential(console, visitor.caller, credential)
    store, proof = console.deps.store, console.background_reads.proofs.get(view.job_id)
    job_entries = store.ledger.entries_newest_first(job=view.job_id, types=JOB_REVOCATION_EVENTS, limit=50).items
    history = sorted([*store.ledger.entries_about(view.job_id, CREDENTIAL_EVENTS, view.id), *job_entries], key=lambda entry: entry.seq)
    revocation_request = next((entry for entry in reversed(history) if entry.type == EventType.REVOCATION_REQUESTED), None)
    return render(
        request,
        "credential.html",
        view=view,
        history=history,
        job=store.jobs.captions({view.job_id}).get(view.job_id),
        revocation_request=None if view.state.is_settled else revocation_request,
        may_stop=visitor.caller.can_stop_jobs_of(console.job_owners.owner_of(view.job_id) or ""),
        proof=proof,
        stream=stream,
        # A page with forms offers a refresh only while a verification or revocation is in progress.
        refresh=5 if (proof and proof.is_running) or (revocation_request and not view.state.is_settled) else 0,
    )


@router.post("/credentials/{credential}/revoke")
async def revoke(credential: str, console: TheConsole, visitor: ThePageUser, _: TheForm) -> Response:
    """Request the revocation of one credential; its job keeps running."""
    view = await request_revocation(console, visitor.caller, credential)
    return RedirectResponse(f"/credentials/{view.id}", status_code=303)


@router.post("/credentials/{credential}/prove")
async def prove(credential: str, console: TheConsole, visitor: PageMember, _: TheForm) -> Response:
    """Verify all access of the credential's job, in Vault and the targets."""
    view = await to_thread.run_sync(visible_credential, console, visitor.caller, credential)
    console.background_reads.proofs.start(view.job_id, by=visitor.caller.person.name)
    return RedirectResponse(f"/credentials/{view.id}#proof", status_code=303)
