"""GET /sessions: the user's own page sessions, and the form to end one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.page_sessions import ActiveSession
from console.http.dependencies import TheConsole
from console.pages.login.login import logout_response
from console.pages.page_user import TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/sessions")
async def sessions(request: Request, console: TheConsole, visitor: ThePageUser) -> Response:
    """Show the user's own sessions."""
    visit: ActiveSession = request.state.visit
    return render(request, "sessions.html", csrf=visitor.csrf, own=visit.row.key, sessions=await console.sessions.open_sessions_of(visit))


@router.post("/sessions/end")
async def end(request: Request, console: TheConsole, form: TheForm) -> Response:
    """End one of the user's own sessions by its key."""
    visit: ActiveSession = request.state.visit
    key = str(form.get("key", ""))
    await console.sessions.end_one(visit, key)
    return logout_response(console) if key == visit.row.key else RedirectResponse("/sessions", status_code=303)
