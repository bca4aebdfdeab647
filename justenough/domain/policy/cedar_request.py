"""How a request looks to Cedar: the job, the resource and the context as entities and attributes (docs/how-to/policies.md). No I/O, no clock.

The folder's schema must declare exactly this shape; `shape_problems` says where it does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any, Literal, Self

import cedarpy
from pydantic import Field

from justenough.domain.catalog.models import Resource
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import Problem
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.spec import JobSpec, RunSpec
from justenough.domain.jobs.states import Action, Sensitivity

OPTIONAL_CONTEXT = ("touched_external", "held_actions", "issued_count", "hour", "weekday", "tool", "arguments", "call")
"""A schema may leave these out: older ones do."""
CALL_ENTITY = "Call"
"""The type of the entity that a tool's call is."""
MAX_DECIMAL, DECIMAL_STEP = Decimal("922337203685477.5807"), Decimal("0.0001")
AGENT_ATTRIBUTES = ("name", "version", "model", "owner")

Attributes = Mapping[str, Any]
Phase = Literal["start", "runtime", "renewal"]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Who asks: the job, its spec with params filled in, and the person who launched it, as verified."""

    id: str
    spec: JobSpec
    requester: str
    """Vault entity id."""
    requester_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Clock:
    """What the clock says in UTC, as far as policies ask it."""

    hour: int
    """0 to 23."""
    weekday: int
    """1 Monday to 7 Sunday, as in ISO 8601."""

    @classmethod
    def at(cls, now: datetime) -> Self:
        """Return what it says at a moment."""
        there = now.astimezone(UTC)
        return cls(there.hour, there.isoweekday())


DEFAULT_CLOCK = Clock(hour=12, weekday=3)
"""A Wednesday's noon: when it is where nobody says, in tables and checks."""


@dataclass(frozen=True, slots=True)
class AccessContext:
    """The circumstances of one request."""

    phase: Phase
    ttl_seconds: int
    reason: str
    clock: Clock
    held: HeldAccess = field(default_factory=HeldAccess)
    break_glass: bool = False
    tool: str = ""
    """The tool whose call needs it; empty where the job wants the credential itself."""
    arguments: frozenset[str] = frozenset()
    """The call's arguments that are plain values: `order_id=7`."""
    numbers: frozenset[str] = frozenset()
    """Those that are numbers: `amount=12.5`."""


class DecisionFacts(Message):
    """What one decision was made from, beside the job's order: recorded with it, so that it can be made again (justenough/domain/policy/replay.py)."""

    resource: str
    action: Action
    environment: str
    """The resource's, as are the next three: as the catalog had them."""
    sensitivity: Sensitivity
    external: bool
    owner: str
    requester_groups: tuple[str, ...]
    phase: Phase
    ttl: int
    """Seconds."""
    held: tuple[str, ...] = ()
    touched: Sensitivity = Sensitivity.PUBLIC
    touched_resources: tuple[str, ...] = ()
    issued_count: int
    hour: int
    """UTC, as is the next."""
    weekday: int
    break_glass: bool = False
    tool: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    """Not there, as is the next, where it was for no call of a tool."""
    arguments: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()
    numbers: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()
    """Those of the arguments that were numbers; not there where none was."""

    @classmethod
    def of(cls, job: JobFacts, name: str, resource: Resource, action: Action, context: AccessContext) -> Self:
        """Return the facts of one question to policy."""
        return cls(
            resource=name,
            action=action,
            environment=resource.environment,
            sensitivity=resource.sensitivity,
            external=resource.external,
            owner=resource.owner,
            requester_groups=tuple(sorted(job.requester_groups)),
            phase=context.phase,
            ttl=context.ttl_seconds,
            held=tuple(sorted(context.held.held)),
            touched=context.held.touched,
            touched_resources=tuple(sorted(context.held.touched_resources)),
            issued_count=context.held.issued_count,
            hour=context.clock.hour,
            weekday=context.clock.weekday,
            break_glass=context.break_glass,
            tool=context.tool,
            arguments=tuple(sorted(context.arguments)),
            numbers=tuple(sorted(context.numbers)),
        )

    def to_context(self, reason: str) -> AccessContext:
        """Return the circumstances as policy is asked about them."""
        held = HeldAccess(
            held=frozenset(self.held),
            touched=self.touched,
            touched_resources=frozenset(self.touched_resources),
            issued_count=self.issued_count,
        )
        clock = Clock(self.hour, self.weekday)
        arguments, numbers = frozenset(self.arguments), frozenset(self.numbers)
        return AccessContext(self.phase, self.ttl, reason, clock, held, self.break_glass, self.tool, arguments, numbers)


def job_attributes(job: JobFacts) -> Attributes:
    """Return the attributes of the principal."""
    spec, agent = job.spec, job.spec.agent
    return {
        "name": spec.name,
        "task": spec.task,
        "agent": {key: getattr(agent, key) if agent else "" for key in AGENT_ATTRIBUTES},
        "environment": spec.environment,
        "requester": job.requester,
        "requester_groups": sorted(job.requester_groups),
        "labels": _pairs(spec.labels),
        "data_scope": _pairs(spec.data_scope),
    }


def resource_attributes(resource: Resource) -> Attributes:
    """Return the attributes of the resource."""
    return {
        "environment": resource.environment,
        "sensitivity": int(resource.sensitivity),
        "external": resource.external,
        "owner": resource.owner,
    }


def context_attributes(context: AccessContext, external: frozenset[str], *, tier: int = 0) -> Attributes:
    """Return the context. `external` names the catalog's external resources."""
    held = context.held
    names = held.touched_resources | {item.rpartition(":")[0] for item in held.held}
    return {
        "approved_tier": tier,
        "phase": context.phase,
        "ttl_seconds": context.ttl_seconds,
        "reason": context.reason,
        "held": sorted(held.held),
        "held_actions": sorted({item.rpartition(":")[2] for item in held.held}),
        "issued_count": held.issued_count,
        "touched": int(held.touched),
        "touched_resources": sorted(names),
        "touched_external": not external.isdisjoint(names),
        "hour": context.clock.hour,
        "weekday": context.clock.weekday,
        "break_glass": context.break_glass,
        "tool": context.tool,
        "arguments": sorted(context.arguments),
        "call": {"__entity": {"type": CALL_ENTITY, "id": context.tool}},
    }


def call_entity_json(context: AccessContext) -> str:
    """Return the call as an entity in Cedar's JSON form: its tags are the arguments that are numbers."""
    pairs = (pair.rpartition("=") for pair in sorted(context.numbers))
    tags = {name: {"__extn": {"fn": "decimal", "arg": decimal_text(value)}} for name, _, value in pairs}
    return json.dumps({"uid": {"type": CALL_ENTITY, "id": context.tool}, "attrs": {}, "parents": [], "tags": tags})


def decimal_text(value: str) -> str:
    """Return a number as a decimal of Cedar's, which has four places and an end.

    What lies between two is the greater, and what is beyond the ends is the end: so whatever is more than a decimal stays more than it.
    """
    number = max(-MAX_DECIMAL, min(MAX_DECIMAL, Decimal(value)))
    return f"{number.quantize(DECIMAL_STEP, rounding=ROUND_CEILING):f}"


def entity_json(kind: str, name: str, attributes: Attributes) -> str:
    """Return an entity in Cedar's JSON form."""
    return json.dumps({"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": []})


def to_cedar_request(job: str, name: str, action: Action, context: str) -> dict[str, Any]:
    """Return one request in the form that cedarpy takes; the context as JSON text."""
    return {
        "principal": {"type": "Job", "id": job},
        "action": {"type": "Action", "id": action.value},
        "resource": {"type": "Resource", "id": name},
        "context": context,
    }


def shape_problems(schema: cedarpy.Schema, text: str, *, file: str) -> Iterator[Problem]:
    """Yield where a schema does not declare what requests look like. `text` is the schema's own."""
    job, resource, context = _sample_request()
    for kind, attributes in (("Job", job_attributes(job)), ("Resource", resource_attributes(resource))):
        try:
            cedarpy.Entities.from_json_str(f"[{entity_json(kind, 'a', attributes)}]", schema)
        except ValueError:
            yield Problem(file, f"entity {kind} must have exactly the attributes of docs/how-to/policies.md: {', '.join(attributes)}")
    if _declares(text, "call"):
        yield from _call_problems(schema, context, file)
    left_out = {name for name in OPTIONAL_CONTEXT if not _declares(text, name)}
    told = {name: value for name, value in context_attributes(context, frozenset()).items() if name not in left_out}
    nothing = cedarpy.PolicySet.from_str("")
    for action in Action:
        answer = cedarpy.is_authorized(to_cedar_request("a", "a", action, json.dumps(told)), nothing, [], schema)
        for error in answer.diagnostics.errors:
            yield Problem(file, f"action {action.value} must take a Job, a Resource and the context of docs/how-to/policies.md: {error}")


def _call_problems(schema: cedarpy.Schema, context: AccessContext, file: str) -> Iterator[Problem]:
    try:
        cedarpy.Entities.from_json_str(f"[{call_entity_json(context)}]", schema)
    except ValueError:
        yield Problem(file, f"entity {CALL_ENTITY} must have no attributes, and tags of type decimal: `entity {CALL_ENTITY} tags decimal;`")


def _sample_request() -> tuple[JobFacts, Resource, AccessContext]:
    """Return a request in which no set is empty, so that the types of their elements are looked at too."""
    spec = JobSpec(name="a", task="a", environment="a", run=RunSpec(command=("a",)), labels={"a": "b"}, data_scope={"a": "b"})
    resource = Resource.model_construct(title="a", environment="a", sensitivity=Sensitivity.PUBLIC, external=False, owner="a", actions={})
    held = HeldAccess(held=frozenset({"a:read"}), touched_resources=frozenset({"a"}))
    context = AccessContext("start", 1, "a", DEFAULT_CLOCK, held, tool="a", arguments=frozenset({"a=b"}), numbers=frozenset({"a=1"}))
    return JobFacts("a", spec, "a", frozenset({"a"})), resource, context


def _declares(schema: str, name: str) -> bool:
    """Whether a schema speaks of an attribute, outside its comments."""
    return re.search(rf'\b{name}"?\s*\??\s*:', re.sub(r"//.*", "", schema)) is not None


def _pairs(values: Mapping[str, str]) -> list[str]:
    return sorted(f"{key}={value}" for key, value in values.items())
