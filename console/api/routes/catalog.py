"""The catalog: what jobs can request."""

from __future__ import annotations

from fastapi import APIRouter

from console.api.dependencies import AuthenticatedRoute, Member
from console.api.schemas import CatalogView, ResourceView, ToolView, WithheldView
from console.http.dependencies import TheConsole

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


@router.get("/catalog", operation_id="catalog")
def show(console: TheConsole, caller: Member) -> CatalogView:
    """Show what jobs can request: resources with their actions, tools, and data scopes."""
    del caller
    catalog = console.deps.config.current().catalog
    return CatalogView(
        scopes=tuple(dict(scope) for scope in catalog.scopes),
        resources=tuple(ResourceView.of(name, resource) for name, resource in catalog.resources.items()),
        tools=tuple(ToolView.of(name, tool) for name, tool in catalog.callable.items()),
        withheld=tuple(WithheldView(upstream=name, why=why) for name, why in catalog.withheld_upstreams.items()),
    )
