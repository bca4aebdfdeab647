"""GET /jobs: the list with its filters in the address. Shows only what the user may read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator

from console.auth.authorization import Role
from console.http.dependencies import Cursor, TheConsole
from console.pages import live_stream
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.status_badges import status_badge
from console.services.background_reads import RevocationFilter
from justenough.domain.jobs.states import JobState, RevocationState
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
    cursor: Cursor = None,
) -> Response:
    """Show the matching jobs, newest first."""
    visitor.caller.require(*Role)
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
        states=(("", "Any state"), *((one.value, status_badge("job", one).word) for one in JobState)),
        environments=sorted({resource.environment for resource in current.catalog.resources.values()} | ({environment} - {""})),
        filters={one: request.query_params[one] for one in FILTERS if request.query_params.get(one, "").strip()},
        launches=Role.LAUNCH in visitor.caller.roles,
        stream=stream,
        refresh=30,
    )
