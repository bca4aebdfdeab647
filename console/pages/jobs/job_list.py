"""GET /jobs: the list with its filters in the address, and the search by id or its beginning. Shows only what the user may read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BeforeValidator

from console.auth.authorization import Role
from console.http.dependencies import Cursor, TheConsole
from console.pages import live_stream
from console.pages.ledger import find_readable
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.status_badges import status_badge
from console.services.background_reads import RevocationFilter
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.readmodel.dashboard import SearchHit
from justenough.domain.readmodel.views import JobSummary, Page

PAGE_SIZE = 50
MAX_TEXT_LENGTH = 200
FILTERS = ("state", "revocation", "name", "requester", "environment", "parent")

router = APIRouter(route_class=PageRoute, include_in_schema=False)

# A form sends its empty fields too; they mean no filter.
State = Annotated[JobState | None, BeforeValidator(lambda text: text or None)]
Proof = Annotated[RevocationFilter | None, BeforeValidator(lambda text: text or None)]
Text = Annotated[str, Query(max_length=MAX_TEXT_LENGTH)]


@router.get("/jobs")
def jobs(  # noqa: PLR0913 - each is one filter of the list
    request: Request,
    console: TheConsole,
    visitor: ThePageUser,
    *,
    state: State = None,
    revocation: Proof = None,
    name: Text = "",
    requester: Text = "",
    environment: Text = "",
    parent: Text = "",
    query: Annotated[str, Query(alias="id", max_length=MAX_TEXT_LENGTH)] = "",
    cursor: Cursor = None,
) -> Response:
    """Show the matching jobs, newest first. `id` searches; a single hit is opened."""
    visitor.caller.require(*Role)
    # Leave out ledger entries: the ledger page finds them.
    hits = [hit for hit in find_readable(console, visitor.caller, query) if hit.kind != "entry"]
    if len(hits) == 1:
        return RedirectResponse(place_url(hits[0]), status_code=303)
    stream = live_stream.stream_url(console, topics="job,approval,revocation")
    page: Page[JobSummary] = console.deps.store.jobs.list(
        state=state,
        revocation=RevocationState(revocation) if revocation else None,
        name=name.strip() or None,
        requester=requester.strip() or None,
        environment=environment.strip() or None,
        parent=parent.strip() or None,
        requester_id=visitor.caller.requester_filter,
        limit=PAGE_SIZE,
        cursor=cursor or None,
    )
    current = console.deps.config.current()
    return render(
        request,
        "jobs.html",
        page=page,
        hits=hits,
        query=query,
        place_url=place_url,
        states=(("", "Any state"), *((one.value, status_badge("job", one).word) for one in JobState)),
        environments=sorted({resource.environment for resource in current.catalog.resources.values()} | ({environment} - {""})),
        filters={one: request.query_params[one] for one in FILTERS if request.query_params.get(one, "").strip()},
        launches=Role.LAUNCH in visitor.caller.roles,
        stream=stream,
        refresh=30,
    )


def place_url(hit: SearchHit) -> str:
    """Return the address that shows a search hit."""
    return f"/jobs/{hit.job}" + (f"#{hit.id}" if hit.kind in {"request", "credential"} else "")
