"""POST /look: choose colours and keyboard shortcuts for this browser."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from console.http.dependencies import TheConsole
from console.pages.look import COOKIE, THEMES, Look
from console.pages.page_user import TheForm, ThePageUser
from console.pages.routing import PageRoute
from justenough.domain.core.errors import InvalidInput, Problem

LIFETIME_S = 365 * 86_400

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.post("/look")
async def choose_look(console: TheConsole, _: ThePageUser, form: TheForm) -> Response:
    """Keep the choice in a cookie."""
    theme, keys = str(form.get("theme", "")), str(form.get("keys", ""))
    if theme not in THEMES or keys not in {"on", "off"}:
        raise InvalidInput("form", (Problem("theme", "choose light, dark or the system's colours, and turn shortcuts on or off"),))
    response = RedirectResponse("/sessions", status_code=303)
    console.cookies.set(response, COOKIE, Look(theme, keys == "on").to_cookie(), max_age_s=LIFETIME_S)
    return response
