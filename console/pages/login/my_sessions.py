"""GET /sessions: where the person is logged in, and how to end that. Shows nobody else's."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.page_sessions import Visit
from console.http.dependencies import TheConsole
from console.pages.login.login import logged_out
from console.pages.page_user import TheForm, TheVisitor
from console.pages.rendering import render
from console.pages.routing import PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/sessions")
async def sessions(request: Request, console: TheConsole, visitor: TheVisitor) -> Response:
    """Show the person's own sessions."""
    visit: Visit = request.state.visit
    return render(request, "sessions.html", csrf=visitor.csrf, own=visit.row.key, sessions=await console.sessions.all_of(visit))


@router.post("/sessions/end")
async def end(request: Request, console: TheConsole, form: TheForm) -> Response:
    """End one of the person's own sessions, by its key."""
    visit: Visit = request.state.visit
    key = str(form.get("key", ""))
    await console.sessions.end_one(visit, key)
    return logged_out(console) if key == visit.row.key else RedirectResponse("/sessions", status_code=303)
