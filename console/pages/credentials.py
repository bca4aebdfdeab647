"""GET /credentials and one of them: what is alive, its story in words, its proof; POST revoke and prove. No secret exists here to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from console.auth.authorization import Role, groups_of, needs
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.page_user import TheForm, TheVisitor, Visitor
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.credentials import DEAD, Wanted, ended, listed, shown
from justenough.adapters.store import Whose
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import Action, CredentialState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialView, EntryView

PAGE = 50
LOOKS = 6
"""Pages that are read through to find something of a launcher's: a page waits no longer than that."""
STOPPERS = (Role.LAUNCH, Role.APPROVE)
"""Who may take a credential away, as the API says."""
OWN = (
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
WHOLE = (EventType.REVOCATION_STARTED, EventType.REVOCATION_OVERDUE, EventType.REVOCATION_CONFIRMED)
"""What it says of everything that a job held."""


class Filters(Message):
    """What the address asks for; empty for whatever."""

    show: Literal["", "all"] = ""
    resource: str = Field("", max_length=63)
    action: Literal[""] | Action = ""
    state: Literal[""] | CredentialState = ""
    job: str = Field("", max_length=64)
    cursor: str | None = Field(None, max_length=200)

    def wanted(self) -> Wanted:
        """Return it as the store takes it. Who names a state wants those that are dead, too, where it is one of theirs."""
        return Wanted(
            live=not self.show and not self.state,
            job=self.job.strip() or None,
            resource=self.resource or None,
            action=self.action or None,
            state=self.state or None,
        )


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credentials")
def credentials(request: Request, console: TheConsole, visitor: TheVisitor, filters: Annotated[Filters, Query()]) -> Response:
    """List credentials, those that are alive unless all are wanted."""
    visitor.caller.require(*Role)
    stream = live_stream.stream(console, topics="credential,revocation")
    which = filters.wanted()
    page = listed(console, visitor.caller, which, limit=PAGE, cursor=filters.cursor, looks=LOOKS)
    return render(
        request,
        "credentials.html",
        page=page,
        jobs=console.deps.store.whose({view.job_id for view in page.items}),
        which=which,
        filtered=any(which[1:]),
        resources=_names(console, filters.resource),
        actions=tuple(Action),
        states=tuple(CredentialState),
        dead=DEAD,
        stream=stream,
        refresh=30,
    )


@router.get("/credentials/{credential}")
def credential(request: Request, credential: str, console: TheConsole, visitor: TheVisitor) -> Response:
    """Show one credential: its handle, how it can be ended, what happened to it."""
    visitor.caller.require(*Role)
    stream = live_stream.stream(console, topics="credential,revocation")
    view = shown(console, visitor.caller, credential)
    story = _story(console, view)
    asked = _asked(view, story)
    proof = console.looks.proofs.of(view.job_id)
    return render(
        request,
        "credential.html",
        view=view,
        story=story,
        job=_job(console.deps.store.whose({view.job_id}), view),
        asked=asked,
        dead=view.state in DEAD,
        may_stop=bool(visitor.caller.roles & set(STOPPERS)),
        stoppers=needs(group for role in STOPPERS for group in groups_of(role, visitor.caller.tiers)),
        proof=proof,
        stream=stream,
        # Without JavaScript a page with forms is not fetched again by itself, unless something is on its way.
        refresh=5 if (proof and proof.runs) or asked else 0,
    )


@router.post("/credentials/{credential}/revoke")
async def revoke(credential: str, console: TheConsole, visitor: TheVisitor, form: TheForm) -> Response:
    """Take one credential away; its job goes on. The page shows how it ends."""
    del form
    visitor.caller.require(*STOPPERS)
    view = await ended(console, visitor.caller, credential)
    return RedirectResponse(f"/credentials/{view.id}" if await _readable(console, visitor, view) else "/credentials", status_code=303)


@router.post("/credentials/{credential}/prove")
async def prove(credential: str, console: TheConsole, visitor: TheVisitor, form: TheForm) -> Response:
    """Look anew at everything that its job held."""
    del form
    visitor.caller.require(*Role)
    view = await to_thread.run_sync(shown, console, visitor.caller, credential)
    console.looks.proofs.ask(view.job_id, by=visitor.caller.person.name)
    return RedirectResponse(f"/credentials/{view.id}#proof", status_code=303)


async def _readable(console: Console, visitor: Visitor, view: CredentialView) -> bool:
    return await to_thread.run_sync(console.owners.readable, visitor.caller, view.job_id)


def _names(console: Console, chosen: str) -> Sequence[str]:
    """Return the resources to choose from; one that the catalog no longer has stays choosable where it was chosen."""
    known = list(console.deps.config.current().catalog.resources)
    return known if not chosen or chosen in known else [chosen, *known]


def _story(console: Console, view: CredentialView) -> Sequence[EntryView]:
    store = console.deps.store
    whole = store.ledger(job=view.job_id, types=WHOLE, limit=50).items
    return sorted([*store.story(view.job_id, OWN, view.id), *whole], key=lambda entry: entry.seq)


def _asked(view: CredentialView, story: Sequence[EntryView]) -> EntryView | None:
    """Return who asked last for the end of what is not dead yet."""
    asked = [entry for entry in story if entry.type == EventType.REVOCATION_REQUESTED]
    return asked[-1] if asked and view.state not in DEAD else None


def _job(known: Mapping[str, Whose], view: CredentialView) -> Whose | None:
    return known.get(view.job_id)
