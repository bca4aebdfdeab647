"""Request bodies, and the responses that only the API has; other views are in `justenough.domain.readmodel.views`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from console.services.inputs import StrictBody
from justenough.domain.catalog.mcp_upstreams import UpstreamTool
from justenough.domain.catalog.models import Resource
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import JobState
from justenough.domain.readmodel.views import Launched
from justenough.domain.tools.definitions import Tool


class Bundled(Message):
    digest: str
    size: int
    """Bytes of the packed bundle, as sent."""


class PauseBody(StrictBody):
    """Why a schedule is paused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the database is being moved tonight"}]})

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class RunBody(StrictBody):
    """Why a schedule's job is run now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "last night's occasion was missed"}]})

    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class ScheduleView(Message):
    """A schedule as in triggers.yaml, its status in Temporal, and the jobs it launched."""

    name: str
    cron: str
    timezone: str
    job: str
    """The spec's file in the configuration folder."""
    params: Mapping[str, str]
    overlap: str
    paused: bool | None
    """None if Temporal does not answer; the next three are empty then."""
    note: str | None
    """Who paused it, and why."""
    next: tuple[datetime, ...]
    """When it is due next; a paused schedule launches nothing at these times."""
    missed: int | None
    """Occasions that Temporal was too late for, since the schedule was created."""
    jobs: tuple[Launched, ...]
    """Newest first."""
    skipped: tuple[str, ...]
    """Occasions at which nothing was launched because the newest job had not ended."""
    problem: str | None
    """Why the status is unknown, or why Temporal differs from triggers.yaml."""


class Triggered(Message):
    """The job that an event or a manual run launched; its sender learns no more about it."""

    id: str
    state: JobState


class Whoami(Message):
    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    tier: int
    """The highest tier they may answer for; 0 for none."""
    installation: str


class ActionView(Message):
    action: str
    max_ttl: int
    """Seconds."""
    revocable: str
    data_scope: tuple[str, ...]
    lock: str
    space: bool
    """Whether the job gets a space of its own, which is dropped when the job's access ends."""


class ResourceView(Message):
    name: str
    title: str
    environment: str
    sensitivity: str
    external: bool
    owner: str
    actions: tuple[ActionView, ...]

    @classmethod
    def of(cls, name: str, resource: Resource) -> ResourceView:
        """Return the view of a resource of the catalog."""
        actions = tuple(
            ActionView(
                action=action.value,
                max_ttl=terms.max_ttl,
                revocable=terms.revocable.value,
                data_scope=terms.data_scope,
                lock=terms.lock,
                space=terms.space,
            )
            for action, terms in resource.actions.items()
        )
        return cls(
            name=name,
            title=resource.title,
            environment=resource.environment,
            sensitivity=resource.sensitivity.name.lower(),
            external=resource.external,
            owner=resource.owner,
            actions=actions,
        )


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
        """Return the view of a tool of the catalog."""
        actions = tuple(sorted(action.value for action in tool.uses.actions))
        upstream = tool.upstream if isinstance(tool, UpstreamTool) else None
        return cls(name=name, description=tool.description, resource=tool.uses.resource, actions=actions, kind=tool.kind, upstream=upstream)


class WithheldView(Message):
    upstream: str
    """An MCP server of the catalog."""
    why: str
    """Why none of its tools is offered."""


class CatalogView(Message):
    scopes: tuple[dict[str, str], ...]
    resources: tuple[ResourceView, ...]
    tools: tuple[ToolView, ...] = ()
    withheld: tuple[WithheldView, ...] = ()
