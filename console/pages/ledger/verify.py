"""GET and POST /ledger/verify: verify every chain. One verification runs at a time and all requests share its result."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.http.dependencies import TheConsole
from console.pages.ledger.ledger import READER_ROLES
from console.pages.page_user import TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.background_reads import WHOLE_LEDGER

MAX_PROBLEMS = 100
"""Problems in the page; `justenough ledger verify` lists up to a thousand."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/ledger/verify")
def verification(request: Request, console: TheConsole, visitor: ThePageUser) -> Response:
    """Show the running verification or the last result."""
    visitor.caller.require(*READER_ROLES)
    work = console.background_reads.verification.get(WHOLE_LEDGER)
    return render(
        request,
        "verification.html",
        work=work,
        head=console.deps.store.ledger.head(),
        most=MAX_PROBLEMS,
        refresh=2 if work and work.runs else 0,
    )


@router.post("/ledger/verify")
async def verify(console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Start a verification, or join the running one."""
    del form
    visitor.caller.require(*READER_ROLES)
    console.background_reads.verification.start(WHOLE_LEDGER, by=visitor.caller.person.name)
    return RedirectResponse("/ledger/verify", status_code=303)
