"""What clients send and what only the API answers. Views of the read model are `justenough.domain.readmodel.views`'. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from console.services.inputs import StrictBody
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import JobState
from justenough.domain.readmodel.views import Launched


class Bundled(Message):
    digest: str
    size: int
    """Bytes, as sent."""


class PauseBody(StrictBody):
    """Why a schedule is to launch nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the database is being moved tonight"}]})

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class RunBody(StrictBody):
    """Why a schedule's job is launched now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "last night's occasion was missed"}]})

    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class ScheduleView(Message):
    """A schedule as triggers.yaml has it, how it stands in Temporal, and what it launched."""

    name: str
    cron: str
    timezone: str
    job: str
    """The spec's file in the configuration folder."""
    params: Mapping[str, str]
    overlap: str
    paused: bool | None
    """None, as the next three are empty, where Temporal does not say."""
    note: str | None
    """Who paused it, and why."""
    next: tuple[datetime, ...]
    """When it is due; a paused one launches nothing then."""
    missed: int | None
    """Occasions that Temporal came too late for, since the schedule is there."""
    jobs: tuple[Launched, ...]
    """The newest first."""
    skipped: tuple[str, ...]
    """Occasions at which nothing was launched because the newest job had not ended."""
    problem: str | None
    """Why Temporal does not say, or is not as triggers.yaml wants it."""


class Triggered(Message):
    """The job that an event, or somebody who ran a schedule, launched: all that its sender learns of it."""

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
    """The highest tier that they answer for; 0 for none."""
    installation: str


class ActionView(Message):
    action: str
    max_ttl: int
    """Seconds."""
    revocable: str
    data_scope: tuple[str, ...]
    lock: str
    space: bool
    """Whether its job gets a space of its own, which is dropped when the job's access ends."""


class ResourceView(Message):
    name: str
    title: str
    environment: str
    sensitivity: str
    external: bool
    owner: str
    actions: tuple[ActionView, ...]


class ToolView(Message):
    name: str
    description: str
    resource: str
    actions: tuple[str, ...]
    """What its calls need."""
    kind: str
    """sql | http | mcp"""
    upstream: str | None = None
    """The MCP server that it is passed on from, as the catalog names it."""


class WithheldView(Message):
    upstream: str
    """An MCP server of the catalog."""
    why: str
    """Why none of its tools is passed on."""


class CatalogView(Message):
    scopes: tuple[dict[str, str], ...]
    resources: tuple[ResourceView, ...]
    tools: tuple[ToolView, ...] = ()
    withheld: tuple[WithheldView, ...] = ()
