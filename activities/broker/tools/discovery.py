"""What a job is told of all that it may ask for, and how: the same over HTTP and over MCP. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from justenough.domain.catalog.llm_validation import model_access, why_for_gateways_only
from justenough.domain.catalog.models import Catalog
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import Action
from justenough.domain.tools.call import tool_only_items
from justenough.domain.tools.definitions import Tool

HOW_BY_ACCESS = "POST /v1/access"


HOW_BY_TOOL = "tools/call {name} at /mcp"


HOW_BY_MODEL = "/openai/v1"


def tool_entry(offer: OfferedTool) -> dict[str, Any]:
    """Return what is told of a tool."""
    asked = offer.decision.outcome == "needs_approval"
    return {
        "name": offer.name,
        "description": offer.tool.description,
        "resource": offer.tool.uses.resource,
        "action": offer.action.value,
        "outcome": offer.decision.outcome,
        "tier": offer.decision.tier if asked else 0,
        "input": offer.tool.schema_of_input,
        "how": HOW_BY_TOOL.format(name=offer.name),
    }


def with_how(items: Iterable[Mapping[str, Any]], tools: Iterable[OfferedTool], spec: JobSpec, catalog: Catalog) -> list[dict[str, Any]]:
    """Return items of access with how each is asked for: nothing where policy denies it at every tier."""
    by_access: dict[tuple[str, str], list[str]] = {}
    for one in tools:
        by_access.setdefault((one.tool.uses.resource, one.action.value), []).append(HOW_BY_TOOL.format(name=one.name))
    return [
        {**item, "how": [*_how_obtained(item, spec, catalog), *by_access.get((item["resource"], item["action"]), ())]}
        if item["outcome"] != "denied"
        else {**item, "how": []}
        for item in items
    ]


def _how_obtained(item: Mapping[str, Any], spec: JobSpec, catalog: Catalog) -> list[str]:
    """Return how the credential itself, or the model behind it, is had."""
    resource, action = item["resource"], Action(item["action"])
    definition = catalog.action(resource, action)
    if definition and definition.locked:
        return ["at the job's start only, listed under `access` in its spec"]
    behind = model_access(spec.model, catalog) if spec.model else None
    if behind and (behind.resource, behind.action) == (resource, action):
        return [HOW_BY_MODEL]
    asked = Access(resource=resource, action=action, ttl=1, reason="-", at="request")
    if why_for_gateways_only(asked, catalog) or tool_only_items(spec, resource, action):
        return []
    return [HOW_BY_ACCESS]


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that this job may use, and what policy would say of a call now."""

    name: str
    tool: Tool
    action: Action
    decision: Decision
