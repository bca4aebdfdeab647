"""The facts that a request could have had instead, one at a time: made from what the policies compare each with. No I/O, no clock.

Nothing is said of facts that no policy compares with a value of its own (`like` patterns, sums, one attribute with another).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from cedarpy import pst

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import Agent, JobSpec
from justenough.domain.jobs.states import Sensitivity
from justenough.domain.policy.cedar_request import AccessContext, JobFacts, Phase

Attribute = tuple[str, ...]
"""`("context", "ttl_seconds")`, `("principal", "agent", "name")`."""
ComparedLiterals = Mapping[Attribute, frozenset[str | int]]
PHASES: tuple[Phase, ...] = ("start", "runtime", "renewal")
COUNT_RANGES = {"hour": range(24), "weekday": range(1, 8), "issued_count": range(1000)}
"""What the context counts beside the ttl, and the values that are tried."""
NO_AGENT = Agent.model_construct(name="", version="", model="", owner="")


@dataclass(frozen=True, slots=True)
class Variation:
    """A request with one fact changed."""

    fact: str
    """Which: `ttl`, `environment`, `requester_groups`, `agent.version`, …"""
    value: str
    """What it is instead; of sets, `with x` or `without x`."""
    job: JobFacts
    context: AccessContext
    distance: int = 0
    """Of what has an order: how much more, or less, than it is."""


def compared_literals(policies: Iterable[pst.Template]) -> ComparedLiterals:
    """Return each attribute that policies compare with literals, with these."""
    found: dict[Attribute, set[str | int]] = {}
    for policy in policies:
        for clause in policy.clauses:
            for attribute, literal in _comparisons(clause.expr):
                found.setdefault(attribute, set()).add(literal)
    return {attribute: frozenset(literals) for attribute, literals in found.items()}


def vary_facts(
    job: JobFacts, context: AccessContext, literals: ComparedLiterals, *, max_ttl: int, environments: Iterable[str] = ()
) -> Iterator[Variation]:
    """Yield the request with each fact changed to what makes or could make a difference; ttls from the shortest, up to `max_ttl`."""
    yield from _vary_ttl(job, context, literals, max_ttl=max_ttl)
    spec = job.spec
    for name in sorted({*environments, *_texts(literals, "principal", "environment")} - {spec.environment}):
        yield Variation("environment", name, replace(job, spec=spec.model_copy(update={"environment": name})), context)
    for group in _texts(literals, "principal", "requester_groups"):
        groups = job.requester_groups ^ {group}
        yield Variation("requester_groups", _toggle_text(group, now=groups), replace(job, requester_groups=groups), context)
    for attribute in ("labels", "data_scope"):
        for pair in _texts(literals, "principal", attribute):
            yield from _vary_pair(job, context, attribute, pair)
    for attribute in ("name", "task"):
        yield from (
            Variation(attribute, text, replace(job, spec=spec.model_copy(update={attribute: text})), context)
            for text in _texts(literals, "principal", attribute)
            if text != getattr(spec, attribute)
        )
    yield from _vary_agent(job, context, literals)
    for person in _texts(literals, "principal", "requester"):
        if person != job.requester:
            yield Variation("requester", person, replace(job, requester=person), context)
    for text in _texts(literals, "context", "reason"):
        if text != context.reason:
            yield Variation("reason", text, job, replace(context, reason=text))


def vary_touched(job: JobFacts, context: AccessContext, literals: ComparedLiterals) -> Iterator[Variation]:
    """Yield the request of a job that had touched more or less sensitive data, or holds something else, where policies compare these."""
    held = context.held
    levels = _around(literals.get(("context", "touched"), ()), besides=held.touched)
    for level in (Sensitivity(level) for level in levels if level in set(Sensitivity)):
        now = held.model_copy(update={"touched": level})
        yield Variation("touched", level.name.lower(), job, replace(context, held=now), level - held.touched)
    for one in _texts(literals, "context", "held"):
        live = held.held ^ {one}
        yield Variation("held", _toggle_text(one, now=live), job, replace(context, held=held.model_copy(update={"held": live})))


def vary_counts(job: JobFacts, context: AccessContext, literals: ComparedLiterals) -> Iterator[Variation]:
    """Yield the request at other hours and days, and of a job that was issued more or less, next to what policies compare these with."""
    now = {"hour": context.clock.hour, "weekday": context.clock.weekday, "issued_count": context.held.issued_count}
    for name, possible in COUNT_RANGES.items():
        for value in _around(literals.get(("context", name), ()), besides=now[name]):
            if value in possible:
                yield Variation(name, str(value), job, _with_count(context, name, value), value - now[name])


def vary_switches(job: JobFacts, context: AccessContext, looks_at: frozenset[tuple[str, str]]) -> Iterator[Variation]:
    """Yield the request in other phases and with break-glass the other way, where policies look at these."""
    if ("context", "phase") in looks_at:
        yield from (Variation("phase", phase, job, replace(context, phase=phase)) for phase in PHASES if phase != context.phase)
    if ("context", "break_glass") in looks_at:
        other = not context.break_glass
        yield Variation("break_glass", "declared" if other else "not declared", job, replace(context, break_glass=other))


def _vary_ttl(job: JobFacts, context: AccessContext, literals: ComparedLiterals, *, max_ttl: int) -> Iterator[Variation]:
    for seconds in _around(literals.get(("context", "ttl_seconds"), ()), besides=context.ttl_seconds):
        if 0 < seconds <= max_ttl:
            yield Variation("ttl", duration_text(seconds), job, replace(context, ttl_seconds=seconds), seconds - context.ttl_seconds)


def _around(limits: Iterable[str | int], *, besides: int) -> list[int]:
    """Return each number that something is compared with and its neighbours, without what it is."""
    return sorted({near for limit in limits if isinstance(limit, int) for near in (limit - 1, limit, limit + 1)} - {besides})


def _with_count(context: AccessContext, name: str, value: int) -> AccessContext:
    if name == "issued_count":
        return replace(context, held=context.held.model_copy(update={name: value}))
    return replace(context, clock=replace(context.clock, **{name: value}))


def _vary_pair(job: JobFacts, context: AccessContext, attribute: str, pair: str) -> Iterator[Variation]:
    name, sign, value = pair.partition("=")
    held: Mapping[str, str] = getattr(job.spec, attribute)
    if not sign:
        return
    there = held.get(name) == value
    now = {key: other for key, other in held.items() if key != name} if there else {**held, name: value}
    spec: JobSpec = job.spec.model_copy(update={attribute: now})
    yield Variation(attribute, f"without {pair}" if there else f"with {pair}", replace(job, spec=spec), context)


def _vary_agent(job: JobFacts, context: AccessContext, literals: ComparedLiterals) -> Iterator[Variation]:
    agent = job.spec.agent or NO_AGENT
    for attribute in Agent.model_fields:
        for text in _texts(literals, "principal", "agent", attribute):
            if text != getattr(agent, attribute):
                other = agent.model_copy(update={attribute: text})
                yield Variation(f"agent.{attribute}", text, replace(job, spec=job.spec.model_copy(update={"agent": other})), context)


def _texts(literals: ComparedLiterals, *attribute: str) -> list[str]:
    return sorted(literal for literal in literals.get(attribute, ()) if isinstance(literal, str))


def _toggle_text(value: str, *, now: frozenset[str]) -> str:
    return f"with {value}" if value in now else f"without {value}"


def _comparisons(node: Any) -> Iterator[tuple[Attribute, str | int]]:
    if isinstance(node, pst.BinaryOp):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            attribute = _attribute_path(one)
            if attribute:
                yield from ((attribute, literal) for literal in _literals(other))
    for inner in _child_nodes(node):
        yield from _comparisons(inner)


def _attribute_path(node: pst.Expr) -> Attribute:
    match node:
        case pst.GetAttr(base=pst.Var(name=variable), attr=name):
            return variable, name
        case pst.GetAttr(base=base, attr=name):
            outer = _attribute_path(base)
            return (*outer, name) if outer else ()
    return ()


def _literals(node: pst.Expr) -> Iterator[str | int]:
    match node:
        case pst.StringLit(value=text):
            yield text
        case pst.LongLit(value=number):
            yield number
        case pst.Set(elements=elements):
            for element in elements:
                yield from _literals(element)


def _child_nodes(node: Any) -> Iterator[Any]:
    if not is_dataclass(node):
        return
    for each in fields(node):
        value = getattr(node, each.name)
        values = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
        yield from (one for one in values if is_dataclass(one))
