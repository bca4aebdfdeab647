"""What can be asked for."""

from __future__ import annotations

from fastapi import APIRouter

from console.api.dependencies import AuthenticatedRoute, Member
from console.api.schemas import ActionView, CatalogView, ResourceView, ToolView, WithheldView
from console.http.dependencies import TheConsole
from justenough.domain.catalog.loader import Resource
from justenough.domain.catalog.mcp_upstreams import UpstreamTool
from justenough.domain.tools.definitions import Tool

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


@router.get("/catalog")
def catalog(console: TheConsole, caller: Member) -> CatalogView:
    """Return what can be asked for."""
    del caller
    found = console.deps.config.current().catalog
    return CatalogView(
        scopes=tuple(dict(scope) for scope in found.scopes),
        resources=tuple(_to_resource_view(name, resource) for name, resource in found.resources.items()),
        tools=tuple(_to_tool_view(name, tool) for name, tool in found.callable.items()),
        withheld=tuple(WithheldView(upstream=name, why=why) for name, why in found.withheld_upstreams.items()),
    )


def _to_resource_view(name: str, resource: Resource) -> ResourceView:
    actions = tuple(
        ActionView(
            action=action.value,
            max_ttl=found.max_ttl,
            revocable=found.revocable.value,
            data_scope=found.data_scope,
            lock=found.lock,
            space=found.space,
        )
        for action, found in resource.actions.items()
    )
    return ResourceView(
        name=name,
        title=resource.title,
        environment=resource.environment,
        sensitivity=resource.sensitivity.name.lower(),
        external=resource.external,
        owner=resource.owner,
        actions=actions,
    )


def _to_tool_view(name: str, tool: Tool) -> ToolView:
    actions = tuple(sorted(action.value for action in tool.uses.actions))
    upstream = tool.upstream if isinstance(tool, UpstreamTool) else None
    return ToolView(
        name=name, description=tool.description, resource=tool.uses.resource, actions=actions, kind=tool.kind, upstream=upstream
    )
