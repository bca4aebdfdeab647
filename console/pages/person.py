"""GET /people/{name}: what a person launched, decided and delegated."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.job_status import tier_name
from console.services.people import person_record

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/people/{name}")
async def show(request: Request, console: TheConsole, visitor: ThePageUser, name: str) -> Response:
    """Show a person's record to themselves, and to those who may read everything."""
    visitor.caller.require(*Role)
    found = await person_record(console, visitor.caller, name)
    title = tier_name(found.tier, visitor.caller.tiers) if found.tier else ""
    return await to_thread.run_sync(lambda: render(request, "person.html", found=found, tier=title))
