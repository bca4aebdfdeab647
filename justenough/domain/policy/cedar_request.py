"""Builds Cedar requests: job, resource and context as entities and attributes (docs/reference/policies.md). No I/O, no clock.

The schema of the configuration folder must declare exactly this shape; `shape_problems` reports deviations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any, Literal, Self

import cedarpy
from pydantic import Field

from justenough.domain.catalog.models import Resource
from justenough.domain.core.base_model import Message, OmittedIfNone
from justenough.domain.core.errors import Problem
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.spec import JobSpec, RunSpec
from justenough.domain.jobs.states import Action, Beyond, Sensitivity

OPTIONAL_CONTEXT = ("touched_external", "held_actions", "issued_count", "hour", "weekday", "tool", "arguments", "call")
"""A schema may omit these attributes, as older schemas do.

A new attribute must be one of these. Job and Resource cannot get new attributes: installations have schemas of their own, which must declare
these two exactly.
"""
CALL_ENTITY = "Call"
"""The entity type of a tool call."""
MAX_DECIMAL, DECIMAL_STEP = Decimal("922337203685477.5807"), Decimal("0.0001")
AGENT_ATTRIBUTES = ("name", "version", "model", "owner")

Attributes = Mapping[str, Any]
Phase = Literal["start", "runtime", "renewal"]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The requesting job: its id, its spec with params filled in, and the verified person who launched it."""

    id: str
    spec: JobSpec
    requester: str
    """Vault entity id."""
    requester_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Clock:
    """The parts of the UTC time that policies can use."""

    hour: int
    """0 to 23."""
    weekday: int
    """1 Monday to 7 Sunday, as in ISO 8601."""

    @classmethod
    def at(cls, now: datetime) -> Self:
        """Return the hour and weekday of a moment in UTC."""
        utc = now.astimezone(UTC)
        return cls(utc.hour, utc.isoweekday())


DEFAULT_CLOCK = Clock(hour=12, weekday=3)
"""Wednesday noon: the default in tables and checks."""


@dataclass(frozen=True, slots=True)
class AccessContext:
    """The circumstances of one request."""

    phase: Phase
    ttl_seconds: int
    reason: str
    clock: Clock
    _: KW_ONLY
    held: HeldAccess = field(default_factory=HeldAccess)
    break_glass: bool = False
    tool: str = ""
    """The tool whose call needs the access; empty if the job requests the credential itself."""
    arguments: frozenset[str] = frozenset()
    """The call's scalar arguments: `order_id=7`."""
    numbers: frozenset[str] = frozenset()
    """The numeric arguments: `amount=12.5`."""
    beyond: Beyond | None = None
    """What the order says about access that it does not name; None if it names this access. Policies do not see this field."""


class DecisionFacts(Message):
    """The inputs of a decision besides the job's order, recorded so that justenough/domain/policy/replay.py can repeat the decision."""

    resource: str
    action: Action
    environment: str
    """The resource's environment. This and the next three fields have the catalog's values at that time."""
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
    """UTC, as is `weekday`."""
    weekday: int
    break_glass: bool = False
    tool: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    """Absent, like `arguments`, if the request is not for a tool call."""
    arguments: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()
    numbers: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()
    """The numeric arguments; absent if there are none."""
    beyond: OmittedIfNone[Beyond] = None
    """What the order said about access that it did not name; absent if it named this access."""

    @classmethod
    def of(cls, job: JobFacts, name: str, resource: Resource, action: Action, context: AccessContext) -> Self:
        return cls(
            resource=name,
            action=action,
            **resource_attributes(resource),
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
            beyond=context.beyond,
        )

    def to_context(self, reason: str) -> AccessContext:
        """Return the circumstances that these facts describe."""
        held, clock = HeldAccess.model_validate(self, from_attributes=True), Clock(self.hour, self.weekday)
        return AccessContext(
            self.phase,
            self.ttl,
            reason,
            clock,
            held=held,
            break_glass=self.break_glass,
            tool=self.tool,
            arguments=frozenset(self.arguments),
            numbers=frozenset(self.numbers),
            beyond=self.beyond,
        )


def job_attributes(job: JobFacts) -> Attributes:
    """Return the principal's attributes."""
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
    return {
        "environment": resource.environment,
        "sensitivity": int(resource.sensitivity),
        "external": resource.external,
        "owner": resource.owner,
    }


def context_attributes(context: AccessContext, external: frozenset[str]) -> Attributes:
    """Return the context's attributes. `external`: names of the catalog's external resources."""
    held = context.held
    names = held.touched_resources | {item.rpartition(":")[0] for item in held.held}
    return {
        # Only for the schema: the engine fills in each tier.
        "approved_tier": 0,
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
    """Return the tool call as an entity in Cedar's JSON form; its tags are the numeric arguments."""
    pairs = (pair.rpartition("=") for pair in sorted(context.numbers))
    tags = {name: {"__extn": {"fn": "decimal", "arg": decimal_text(value)}} for name, _, value in pairs}
    return json.dumps({"uid": {"type": CALL_ENTITY, "id": context.tool}, "attrs": {}, "parents": [], "tags": tags})


def decimal_text(value: str) -> str:
    """Return a number as a Cedar decimal, which has four places and a limited range.

    Rounds up and clamps to the range, so a number above a limit that a policy names never falls to that limit.
    """
    number = max(-MAX_DECIMAL, min(MAX_DECIMAL, Decimal(value)))
    return f"{number.quantize(DECIMAL_STEP, rounding=ROUND_CEILING):f}"


def entity_json(kind: str, name: str, attributes: Attributes) -> str:
    """Return an entity in Cedar's JSON form."""
    return json.dumps({"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": []})


def to_cedar_request(job: str, name: str, action: Action, context: str) -> dict[str, Any]:
    """Return a request in cedarpy's form. `context` is JSON text."""
    return {
        "principal": {"type": "Job", "id": job},
        "action": {"type": "Action", "id": action.value},
        "resource": {"type": "Resource", "id": name},
        "context": context,
    }


def shape_problems(schema: cedarpy.Schema, text: str, *, file: str) -> Iterator[Problem]:
    """Yield each difference between a schema and the shape of our requests. `text`: the schema's source."""
    # No set of this sample is empty, so that the types of the elements are checked too.
    spec = JobSpec(name="a", task="a", environment="a", run=RunSpec(command=("a",)), labels={"a": "b"}, data_scope={"a": "b"})
    resource = Resource.model_construct(title="a", environment="a", sensitivity=Sensitivity.PUBLIC, external=False, owner="a", actions={})
    held = HeldAccess(held=frozenset({"a:read"}), touched_resources=frozenset({"a"}))
    context = AccessContext("start", 1, "a", DEFAULT_CLOCK, held=held, tool="a", arguments=frozenset({"a=b"}), numbers=frozenset({"a=1"}))
    job = job_attributes(JobFacts("a", spec, "a", frozenset({"a"})))
    exactly = "entity {} must have exactly the attributes of docs/reference/policies.md: {}"
    samples = [
        (entity_json(kind, "a", names), exactly.format(kind, ", ".join(names)))
        for kind, names in (("Job", job), ("Resource", resource_attributes(resource)))
    ]
    if _declares(text, "call"):
        message = f"entity {CALL_ENTITY} must have no attributes, and tags of type decimal: `entity {CALL_ENTITY} tags decimal;`"
        samples.append((call_entity_json(context), message))
    for entity, message in samples:
        try:
            cedarpy.Entities.from_json_str(f"[{entity}]", schema)
        except ValueError:
            yield Problem(file, message)
    left_out = {name for name in OPTIONAL_CONTEXT if not _declares(text, name)}
    attributes = json.dumps({name: value for name, value in context_attributes(context, frozenset()).items() if name not in left_out})
    no_policies = cedarpy.PolicySet.from_str("")
    for action in Action:
        result = cedarpy.is_authorized(to_cedar_request("a", "a", action, attributes), no_policies, [], schema)
        for error in result.diagnostics.errors:
            yield Problem(file, f"action {action.value} must take a Job, a Resource and the context of docs/reference/policies.md: {error}")


def _declares(schema: str, name: str) -> bool:
    """Whether a schema declares an attribute, ignoring comments."""
    return re.search(rf'\b{name}"?\s*\??\s*:', re.sub(r"//.*", "", schema)) is not None


def _pairs(values: Mapping[str, str]) -> list[str]:
    return sorted(f"{key}={value}" for key, value in values.items())
