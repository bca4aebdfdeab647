"""The caller's own identity, groups and roles."""

from __future__ import annotations

from fastapi import APIRouter

from console.api.dependencies import Anyone, AuthenticatedRoute
from console.api.schemas import Whoami
from console.http.dependencies import TheConsole

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


@router.get("/whoami")
def whoami(console: TheConsole, caller: Anyone) -> Whoami:
    """Show the caller's own identity, groups and roles."""
    return Whoami(
        id=caller.person.id,
        name=caller.person.name,
        groups=tuple(sorted(caller.person.groups)),
        roles=tuple(sorted(caller.roles)),
        tier=caller.tier,
        installation=console.deps.settings.installation,
    )
