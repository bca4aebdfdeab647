"""The caller's identity, the catalog, and running a sweep."""

from __future__ import annotations

from fastapi import APIRouter

from console.api.dependencies import Anyone, AuthenticatedRoute, Member
from console.api.schemas import CatalogView, ResourceView, ToolView, Whoami, WithheldView
from console.http.dependencies import TheConsole
from justenough.domain.contracts.workflow_messages import SweepReport

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


@router.get("/catalog", operation_id="catalog")
def show_catalog(console: TheConsole, _: Member) -> CatalogView:
    """Show what jobs can request: resources with their actions, tools, and data scopes."""
    catalog = console.deps.config.current().catalog
    return CatalogView(
        scopes=tuple(dict(scope) for scope in catalog.scopes),
        resources=tuple(ResourceView.of(name, resource) for name, resource in catalog.resources.items()),
        tools=tuple(ToolView.of(name, tool) for name, tool in catalog.callable.items()),
        withheld=tuple(WithheldView(upstream=name, why=why) for name, why in catalog.withheld_upstreams.items()),
    )


@router.post("/sweep")
async def sweep(console: TheConsole, _: Member) -> SweepReport:
    """Compare Vault and the targets with open jobs now, and revoke access that belongs to no open job."""
    return await console.gateway.sweep()
