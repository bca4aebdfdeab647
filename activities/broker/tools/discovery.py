"""Describes what a job may request and how, for HTTP and MCP alike. Makes no decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from justenough.domain.catalog.gateway_validation import model_access, why_for_gateways_only
from justenough.domain.catalog.models import Catalog
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import Action, Beyond
from justenough.domain.tools.call import tool_only_items
from justenough.domain.tools.definitions import Tool

HOW_BY_ACCESS = "POST /v1/access"
HOW_BY_TOOL = "tools/call {name} at /mcp"
HOW_BY_MODEL = "/openai/v1"


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that this job may use, and what policy would decide about a call now."""

    name: str
    tool: Tool
    action: Action
    decision: Decision
    beyond: Beyond | None
    """What the order says about tools that it does not name; None if it names this tool."""


def tool_entry(offer: OfferedTool) -> dict[str, Any]:
    return {
        "name": offer.name,
        "description": offer.tool.description,
        "resource": offer.tool.uses.resource,
        "action": offer.action.value,
        "outcome": offer.decision.outcome,
        "tier": offer.decision.tier if offer.decision.outcome == "needs_approval" else 0,
        "beyond": offer.beyond,
        "input": offer.tool.schema_of_input,
        "how": HOW_BY_TOOL.format(name=offer.name),
    }


def with_how(items: Iterable[Mapping[str, Any]], tools: Iterable[OfferedTool], spec: JobSpec, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the access items, each with the ways to request it; an item that policy denies at every tier has none."""
    by_access: dict[tuple[str, str], list[str]] = {}
    for offer in tools:
        by_access.setdefault((offer.tool.uses.resource, offer.action.value), []).append(HOW_BY_TOOL.format(name=offer.name))
    return [
        {**item, "how": [*_credential_ways(item, spec, catalog), *by_access.get((item["resource"], item["action"]), ())]}
        if item["outcome"] != "denied"
        else {**item, "how": []}
        for item in items
    ]


def _credential_ways(item: Mapping[str, Any], spec: JobSpec, catalog: Catalog) -> list[str]:
    """Return the ways to get the credential itself, or to use the model that it belongs to."""
    resource, action = item["resource"], Action(item["action"])
    definition = catalog.action(resource, action)
    if definition and definition.locked:
        return ["at the job's start only, listed under `access` in its spec"]
    key = model_access(spec.model, catalog) if spec.model else None
    if key and (key.resource, key.action) == (resource, action):
        return [HOW_BY_MODEL]
    access = Access(resource=resource, action=action, ttl=1, reason="-", at="request")
    gateways_only = why_for_gateways_only(access, catalog) or tool_only_items(spec, resource, action)
    return [] if gateways_only else [HOW_BY_ACCESS]
