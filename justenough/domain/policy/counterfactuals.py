"""Variations of a request: each changes one fact to a value with which the policies compare it. No I/O, no clock.

A fact that no policy compares with a literal is not varied (`like` patterns, sums, comparisons of two attributes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cedarpy import pst

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import Agent
from justenough.domain.jobs.states import Sensitivity
from justenough.domain.policy.cedar_request import AccessContext, JobFacts, Phase
from justenough.domain.policy.partial_evaluation import walk

Attribute = tuple[str, ...]
"""`("context", "ttl_seconds")`, `("principal", "agent", "name")`."""
ComparedLiterals = Mapping[Attribute, frozenset[str | int]]
PHASES: tuple[Phase, ...] = ("start", "runtime", "renewal")
NO_AGENT = Agent.model_construct(name="", version="", model="", owner="")


@dataclass(frozen=True, slots=True)
class Variation:
    """A request with one changed fact."""

    fact: str
    """`ttl`, `environment`, `requester_groups`, `agent.version`, …"""
    value: str
    """The new value; for sets, `with x` or `without x`."""
    job: JobFacts
    context: AccessContext
    distance: int = 0
    """The new number minus the old one, if the fact is a number."""


def compared_literals(policies: Iterable[pst.Template]) -> ComparedLiterals:
    """Return the literals that policies compare with each attribute."""
    literals = defaultdict[Attribute, set[str | int]](set)
    for node in walk(tuple(policy.clauses for policy in policies)):
        if isinstance(node, pst.BinaryOp):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                attribute = _attribute_path(side)
                if attribute and isinstance(other, pst.StringLit | pst.LongLit | pst.Set):
                    literals[attribute].update(literal.value for literal in walk(other) if isinstance(literal, pst.StringLit | pst.LongLit))
    return {attribute: frozenset(values) for attribute, values in literals.items() if values}


def vary_order(
    job: JobFacts, context: AccessContext, literals: ComparedLiterals, *, max_ttl: int, environments: Iterable[str] = ()
) -> Iterator[Variation]:
    """Yield the request with each fact of the job and its access changed; ttls from the shortest, up to `max_ttl` seconds."""
    for seconds in _neighbours(literals, "ttl_seconds", range(1, max_ttl + 1), context.ttl_seconds):
        yield Variation("ttl", duration_text(seconds), job, replace(context, ttl_seconds=seconds), seconds - context.ttl_seconds)
    spec, agent = job.spec, job.spec.agent or NO_AGENT
    for name in sorted({*environments, *_texts(literals, "principal", "environment")} - {spec.environment}):
        yield Variation("environment", name, _with_spec(job, "environment", name), context)
    for group in _texts(literals, "principal", "requester_groups"):
        groups = job.requester_groups ^ {group}
        yield Variation("requester_groups", _toggle_text(group, groups), replace(job, requester_groups=groups), context)
    for field, pairs in (("labels", spec.labels), ("data_scope", spec.data_scope)):
        for pair in _texts(literals, "principal", field):
            name, sign, value = pair.partition("=")
            others = {key: other for key, other in pairs.items() if key != name}
            changed = others if pairs.get(name) == value else {**pairs, name: value}
            if sign:
                yield Variation(field, f"{'without' if changed is others else 'with'} {pair}", _with_spec(job, field, changed), context)
    yield from (
        Variation(field, text, _with_spec(job, field, text), context)
        for field in ("name", "task")
        for text in _texts(literals, "principal", field, besides=getattr(spec, field))
    )
    yield from (
        Variation(f"agent.{field}", text, _with_spec(job, "agent", agent.model_copy(update={field: text})), context)
        for field in Agent.model_fields
        for text in _texts(literals, "principal", "agent", field, besides=getattr(agent, field))
    )
    for person in _texts(literals, "principal", "requester", besides=job.requester):
        yield Variation("requester", person, replace(job, requester=person), context)
    for text in _texts(literals, "context", "reason", besides=context.reason):
        yield Variation("reason", text, job, replace(context, reason=text))


def vary_circumstances(
    job: JobFacts, context: AccessContext, literals: ComparedLiterals, mentioned: frozenset[tuple[str, str]]
) -> Iterator[Variation]:
    """Yield the request with each circumstance changed: data touched, access held, counts, time; phase and break-glass if a policy reads them."""
    held, clock = context.held, context.clock
    for level in _neighbours(literals, "touched", range(len(Sensitivity)), held.touched):
        touched = Sensitivity(level)
        changed = replace(context, held=held.model_copy(update={"touched": touched}))
        yield Variation("touched", touched.name.lower(), job, changed, level - held.touched)
    for item in _texts(literals, "context", "held"):
        live = held.held ^ {item}
        yield Variation("held", _toggle_text(item, live), job, replace(context, held=held.model_copy(update={"held": live})))
    for hour in _neighbours(literals, "hour", range(24), clock.hour):
        yield Variation("hour", str(hour), job, replace(context, clock=replace(clock, hour=hour)), hour - clock.hour)
    for weekday in _neighbours(literals, "weekday", range(1, 8), clock.weekday):
        yield Variation("weekday", str(weekday), job, replace(context, clock=replace(clock, weekday=weekday)), weekday - clock.weekday)
    for count in _neighbours(literals, "issued_count", range(1000), held.issued_count):
        changed = replace(context, held=held.model_copy(update={"issued_count": count}))
        yield Variation("issued_count", str(count), job, changed, count - held.issued_count)
    if ("context", "phase") in mentioned:
        yield from (Variation("phase", phase, job, replace(context, phase=phase)) for phase in PHASES if phase != context.phase)
    if ("context", "break_glass") in mentioned:
        other = not context.break_glass
        yield Variation("break_glass", "declared" if other else "not declared", job, replace(context, break_glass=other))


def _neighbours(literals: ComparedLiterals, attribute: str, possible: range, current: int) -> list[int]:
    """Return each number that policies compare a context attribute with, and its neighbours; not the current value or impossible values."""
    limits = [limit for limit in literals.get(("context", attribute), ()) if isinstance(limit, int)]
    return sorted({near for limit in limits for near in (limit - 1, limit, limit + 1) if near in possible} - {current})


def _texts(literals: ComparedLiterals, *attribute: str, besides: str | None = None) -> list[str]:
    return sorted(literal for literal in literals.get(attribute, ()) if isinstance(literal, str) and literal != besides)


def _toggle_text(value: str, changed: frozenset[str]) -> str:
    return f"with {value}" if value in changed else f"without {value}"


def _with_spec(job: JobFacts, field: str, value: object) -> JobFacts:
    return replace(job, spec=job.spec.model_copy(update={field: value}))


def _attribute_path(node: pst.Expr) -> Attribute:
    match node:
        case pst.GetAttr(base=pst.Var(name=variable), attr=name):
            return variable, name
        case pst.GetAttr(base=base, attr=name):
            outer = _attribute_path(base)
            return (*outer, name) if outer else ()
    return ()
