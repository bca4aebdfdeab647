"""The caller's identity, the catalog, the search, what needs attention, and running a sweep."""

from __future__ import annotations

from itertools import starmap
from typing import Annotated, Any, Self

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from pydantic import StringConstraints

from console.api.dependencies import Anyone, AuthenticatedRoute, Member
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.background_reads import WHOLE_INSTALLATION
from console.services.catalog_offers import OfferedAction, offered_actions
from console.services.dashboard import MAX_NOTE_CHARS, acknowledge, visible_items
from console.services.deciders import tier_deciders
from console.services.inputs import StrictBody
from console.services.search import SearchResult, search
from console.services.visibility import visible_sweep
from justenough.domain.catalog.mcp_upstreams import UpstreamTool
from justenough.domain.catalog.models import ActionDef, Resource
from justenough.domain.contracts.workflow_messages import SweepReport
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import NotFound
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.jobs.states import Action
from justenough.domain.readmodel.attention import AttentionItem
from justenough.domain.readmodel.search import MAX_QUERY_CHARS
from justenough.domain.readmodel.views import Page
from justenough.domain.tools.definitions import Tool

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


class Whoami(Message):
    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    tier: int
    """The highest tier at which they may decide; 0 for none."""
    installation: str


class ActionView(Message):
    action: str
    max_ttl: int
    """Seconds."""
    revocable: str
    data_scope: tuple[str, ...]
    lock: str
    space: bool
    """Whether the job gets its own space in the target, which is dropped when its access ends."""

    @classmethod
    def of(cls, action: Action, terms: ActionDef) -> ActionView:
        return cls.model_validate({**dict(terms), "action": action.value})


class ResourceTerms(Message):
    name: str
    title: str
    environment: str
    sensitivity: str
    external: bool
    owner: str

    @classmethod
    def of(cls, name: str, resource: Resource, **more: Any) -> Self:
        """Return the view of a resource of the catalog. `more`: the additional fields of this view."""
        terms = resource.model_dump(include={"title", "environment", "external", "owner"})
        return cls(name=name, sensitivity=resource.sensitivity.name.lower(), **terms, **more)


class ResourceView(ResourceTerms):
    actions: tuple[ActionView, ...]


class DeciderGroup(Message):
    group: str
    names: tuple[str, ...]
    """Login names of its members, as far as Vault lists them; "…" at the end if there are more."""


class DeciderTier(Message):
    tier: int
    name: str
    """As in approvals.yaml."""
    quorum: int
    """The approvals that a request needs at this tier."""
    groups: tuple[DeciderGroup, ...]


class OfferedActionView(Message):
    action: str
    max_ttl: int
    """Seconds."""
    revocable: str
    outcome: str
    """allowed | needs_approval | denied: what current policy decides about a launcher's plain request for the maximum ttl."""
    tier: int
    """The tier that must approve it; 0 unless the outcome is needs_approval."""
    policies: tuple[str, ...]
    """The deciding policies."""

    @classmethod
    def of(cls, offered: OfferedAction) -> OfferedActionView:
        """Return the view of an action with current policy's decision."""
        decision, terms = offered.decision, offered.definition
        tier = decision.tier if decision.outcome == "needs_approval" else 0
        shown = {"outcome": decision.outcome, "tier": tier, "policies": decision.policies}
        return cls.model_validate({"action": offered.action.value, "max_ttl": terms.max_ttl, "revocable": terms.revocable, **shown})


class OfferedResourceView(ResourceTerms):
    actions: tuple[OfferedActionView, ...]
    """From the narrowest to the broadest. Jobs can request no others."""
    deciders: tuple[DeciderTier, ...]
    """Who can decide, from the lowest tier that an action needs. The approvers of higher tiers can decide at lower ones, too."""


class ToolView(Message):
    name: str
    description: str
    resource: str
    actions: tuple[str, ...]
    """The actions that calling it needs."""
    kind: str
    """sql | http | mcp"""
    upstream: str | None = None
    """The MCP server that offers it, by its name in the catalog."""

    @classmethod
    def of(cls, name: str, tool: Tool) -> ToolView:
        actions = tuple(sorted(action.value for action in tool.uses.actions))
        upstream = tool.upstream if isinstance(tool, UpstreamTool) else None
        return cls(name=name, description=tool.description, resource=tool.uses.resource, actions=actions, kind=tool.kind, upstream=upstream)


class WithheldView(Message):
    upstream: str
    """An MCP server of the catalog."""
    why: str
    """Why its tools are not offered."""


class CatalogView(Message):
    scopes: tuple[dict[str, str], ...]
    resources: tuple[ResourceView, ...]
    tools: tuple[ToolView, ...] = ()
    withheld: tuple[WithheldView, ...] = ()


class AcknowledgeBody(
    StrictBody, json_schema_extra={"examples": [{"item": "schedule/nightly-report", "note": "The database is being moved"}]}
):
    """The item that the caller takes care of."""

    item: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    """The item's `key`."""
    note: Annotated[str, StringConstraints(max_length=MAX_NOTE_CHARS)] = ""


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
        resources=tuple(
            ResourceView.of(name, resource, actions=tuple(starmap(ActionView.of, resource.actions.items())))
            for name, resource in catalog.resources.items()
        ),
        tools=tuple(ToolView.of(name, tool) for name, tool in catalog.callable.items()),
        withheld=tuple(WithheldView(upstream=name, why=why) for name, why in catalog.upstreams.withheld.items()),
    )


@router.get("/resources/{name}", operation_id="resource")
def show_resource(
    console: TheConsole, _: Member, name: Annotated[str, Path(description="Name of the resource in the catalog")]
) -> OfferedResourceView:
    """Show a resource of the catalog: its actions, what current policy decides on each, and who can decide."""
    current = console.deps.config.current()
    resource = current.catalog.resources.get(name)
    if resource is None:
        raise NotFound(f"there is no resource {name} in the catalog{did_you_mean(name, current.catalog.resources)}")
    actions = tuple(map(OfferedActionView.of, offered_actions(current, name, now=console.deps.now())))
    lowest = min((action.tier for action in actions if action.tier), default=current.tiers.top + 1)
    deciders = tuple(
        DeciderTier(
            tier=number,
            name=tier.name,
            quorum=tier.quorum,
            groups=tuple(DeciderGroup(group=one.group, names=one.names) for one in tier_deciders(console.deps, current.tiers, number)),
        )
        for number, tier in sorted(current.tiers.tiers.items())
        if number >= lowest
    )
    return OfferedResourceView.of(name, resource, actions=actions, deciders=deciders)


@router.post("/sweep")
async def sweep(console: TheConsole, caller: Member) -> SweepReport:
    """Compare Vault and the targets with open jobs now, and revoke access that belongs to no open job. The report shows launchers only
    their own jobs.
    """
    report = await console.background_reads.sweeps.result(WHOLE_INSTALLATION, by=caller.person.name)
    return await to_thread.run_sync(visible_sweep, report, console.job_owners, caller)


@router.get("/search")
def find(
    console: TheConsole,
    caller: Member,
    q: Annotated[str, Query(min_length=1, max_length=MAX_QUERY_CHARS, description="What to find, as typed or pasted")],
) -> SearchResult:
    """Find jobs, requests, credentials, ledger entries, resources, agents and people by id, name, word, database user, lease or certificate serial. A launcher finds only what belongs to their own jobs."""
    return search(console, caller, q)


@router.get("/attention")
def list_attention(console: TheConsole, caller: Member) -> Page[AttentionItem]:
    """List what needs attention now, acknowledged or not. A launcher sees only what is about their own jobs."""
    return Page(items=visible_items(caller, console.dashboard), next=None)


@router.post("/attention/acknowledge", responses=problem_responses(404))
def acknowledge_item(body: AcknowledgeBody, console: TheConsole, caller: Member) -> AttentionItem:
    """Record that the caller takes care of an item. People who may stop the item's job can do that; for items about the
    installation, people who may stop any job.
    """
    return acknowledge(console.deps, console.dashboard, caller, body.item, body.note)
