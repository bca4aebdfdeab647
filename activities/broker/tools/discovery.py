"""What a job is told of all that it may ask for, and how: the same over HTTP and over MCP. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from justenough.domain.catalog.llm_validation import access_of, why_for_gateways_only
from justenough.domain.catalog.models import Catalog
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import Action
from justenough.domain.tools.call import bounded
from justenough.domain.tools.definitions import Tool

ASKING = "POST /v1/access"


CALLING = "tools/call {name} at /mcp"


THINKING = "/openai/v1"


def told_of(one: Offered) -> dict[str, Any]:
    """Return what is told of a tool."""
    asked = one.decision.outcome == "needs_approval"
    return {
        "name": one.name,
        "description": one.tool.description,
        "resource": one.tool.uses.resource,
        "action": one.action.value,
        "outcome": one.decision.outcome,
        "tier": one.decision.tier if asked else 0,
        "input": one.tool.schema_of_input,
        "how": CALLING.format(name=one.name),
    }


def with_ways(items: Iterable[Mapping[str, Any]], tools: Iterable[Offered], spec: JobSpec, catalog: Catalog) -> list[dict[str, Any]]:
    """Return items of access with how each is asked for: nothing where policy denies it at every tier."""
    by_access: dict[tuple[str, str], list[str]] = {}
    for one in tools:
        by_access.setdefault((one.tool.uses.resource, one.action.value), []).append(CALLING.format(name=one.name))
    return [
        {**item, "how": [*_ways(item, spec, catalog), *by_access.get((item["resource"], item["action"]), ())]}
        if item["outcome"] != "denied"
        else {**item, "how": []}
        for item in items
    ]


def _ways(item: Mapping[str, Any], spec: JobSpec, catalog: Catalog) -> list[str]:
    """Return how the credential itself, or the model behind it, is had."""
    resource, action = item["resource"], Action(item["action"])
    definition = catalog.action(resource, action)
    if definition and definition.locked:
        return ["at the job's start only, listed under `access` in its spec"]
    behind = access_of(spec.model, catalog) if spec.model else None
    if behind and (behind.resource, behind.action) == (resource, action):
        return [THINKING]
    asked = Access(resource=resource, action=action, ttl=1, reason="-", at="request")
    if why_for_gateways_only(asked, catalog) or bounded(spec, resource, action):
        return []
    return [ASKING]


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that this job may use, and what policy would say of a call now."""

    name: str
    tool: Tool
    action: Action
    decision: Decision
