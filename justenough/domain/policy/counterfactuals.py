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
Compared = Mapping[Attribute, frozenset[str | int]]
PHASES: tuple[Phase, ...] = ("start", "runtime", "renewal")
COUNTED = {"hour": range(24), "weekday": range(1, 8), "issued_count": range(1000)}
"""What the context counts beside the ttl, and the values that are tried."""
NOBODY = Agent.model_construct(name="", version="", model="", owner="")


@dataclass(frozen=True, slots=True)
class Varied:
    """A request with one fact changed."""

    fact: str
    """Which: `ttl`, `environment`, `requester_groups`, `agent.version`, …"""
    value: str
    """What it is instead; of sets, `with x` or `without x`."""
    job: JobFacts
    context: AccessContext
    distance: int = 0
    """Of what has an order: how much more, or less, than it is."""


def compared(policies: Iterable[pst.Template]) -> Compared:
    """Return each attribute that policies compare with literals, with these."""
    found: dict[Attribute, set[str | int]] = {}
    for policy in policies:
        for clause in policy.clauses:
            for attribute, literal in _comparisons(clause.expr):
                found.setdefault(attribute, set()).add(literal)
    return {attribute: frozenset(literals) for attribute, literals in found.items()}


def varied(
    job: JobFacts, context: AccessContext, literals: Compared, *, max_ttl: int, environments: Iterable[str] = ()
) -> Iterator[Varied]:
    """Yield the request with each fact changed to what makes or could make a difference; ttls from the shortest, up to `max_ttl`."""
    yield from _ttls(job, context, literals, max_ttl=max_ttl)
    spec = job.spec
    for name in sorted({*environments, *_texts(literals, "principal", "environment")} - {spec.environment}):
        yield Varied("environment", name, replace(job, spec=spec.model_copy(update={"environment": name})), context)
    for group in _texts(literals, "principal", "requester_groups"):
        groups = job.requester_groups ^ {group}
        yield Varied("requester_groups", _toggled(group, now=groups), replace(job, requester_groups=groups), context)
    for attribute in ("labels", "data_scope"):
        for pair in _texts(literals, "principal", attribute):
            yield from _pair(job, context, attribute, pair)
    for attribute in ("name", "task"):
        yield from (
            Varied(attribute, text, replace(job, spec=spec.model_copy(update={attribute: text})), context)
            for text in _texts(literals, "principal", attribute)
            if text != getattr(spec, attribute)
        )
    yield from _agents(job, context, literals)
    for person in _texts(literals, "principal", "requester"):
        if person != job.requester:
            yield Varied("requester", person, replace(job, requester=person), context)
    for text in _texts(literals, "context", "reason"):
        if text != context.reason:
            yield Varied("reason", text, job, replace(context, reason=text))


def touching(job: JobFacts, context: AccessContext, literals: Compared) -> Iterator[Varied]:
    """Yield the request of a job that had touched more or less sensitive data, or holds something else, where policies compare these."""
    held = context.held
    levels = _around(literals.get(("context", "touched"), ()), besides=held.touched)
    for level in (Sensitivity(level) for level in levels if level in set(Sensitivity)):
        now = held.model_copy(update={"touched": level})
        yield Varied("touched", level.name.lower(), job, replace(context, held=now), level - held.touched)
    for one in _texts(literals, "context", "held"):
        live = held.held ^ {one}
        yield Varied("held", _toggled(one, now=live), job, replace(context, held=held.model_copy(update={"held": live})))


def counted(job: JobFacts, context: AccessContext, literals: Compared) -> Iterator[Varied]:
    """Yield the request at other hours and days, and of a job that was issued more or less, next to what policies compare these with."""
    now = {"hour": context.clock.hour, "weekday": context.clock.weekday, "issued_count": context.held.issued_count}
    for name, possible in COUNTED.items():
        for value in _around(literals.get(("context", name), ()), besides=now[name]):
            if value in possible:
                yield Varied(name, str(value), job, _counting(context, name, value), value - now[name])


def switched(job: JobFacts, context: AccessContext, looks_at: frozenset[tuple[str, str]]) -> Iterator[Varied]:
    """Yield the request in other phases and with break-glass the other way, where policies look at these."""
    if ("context", "phase") in looks_at:
        yield from (Varied("phase", phase, job, replace(context, phase=phase)) for phase in PHASES if phase != context.phase)
    if ("context", "break_glass") in looks_at:
        other = not context.break_glass
        yield Varied("break_glass", "declared" if other else "not declared", job, replace(context, break_glass=other))


def _ttls(job: JobFacts, context: AccessContext, literals: Compared, *, max_ttl: int) -> Iterator[Varied]:
    for seconds in _around(literals.get(("context", "ttl_seconds"), ()), besides=context.ttl_seconds):
        if 0 < seconds <= max_ttl:
            yield Varied("ttl", duration_text(seconds), job, replace(context, ttl_seconds=seconds), seconds - context.ttl_seconds)


def _around(limits: Iterable[str | int], *, besides: int) -> list[int]:
    """Return each number that something is compared with and its neighbours, without what it is."""
    return sorted({near for limit in limits if isinstance(limit, int) for near in (limit - 1, limit, limit + 1)} - {besides})


def _counting(context: AccessContext, name: str, value: int) -> AccessContext:
    if name == "issued_count":
        return replace(context, held=context.held.model_copy(update={name: value}))
    return replace(context, clock=replace(context.clock, **{name: value}))


def _pair(job: JobFacts, context: AccessContext, attribute: str, pair: str) -> Iterator[Varied]:
    name, sign, value = pair.partition("=")
    held: Mapping[str, str] = getattr(job.spec, attribute)
    if not sign:
        return
    there = held.get(name) == value
    now = {key: other for key, other in held.items() if key != name} if there else {**held, name: value}
    spec: JobSpec = job.spec.model_copy(update={attribute: now})
    yield Varied(attribute, f"without {pair}" if there else f"with {pair}", replace(job, spec=spec), context)


def _agents(job: JobFacts, context: AccessContext, literals: Compared) -> Iterator[Varied]:
    agent = job.spec.agent or NOBODY
    for attribute in Agent.model_fields:
        for text in _texts(literals, "principal", "agent", attribute):
            if text != getattr(agent, attribute):
                other = agent.model_copy(update={attribute: text})
                yield Varied(f"agent.{attribute}", text, replace(job, spec=job.spec.model_copy(update={"agent": other})), context)


def _texts(literals: Compared, *attribute: str) -> list[str]:
    return sorted(literal for literal in literals.get(attribute, ()) if isinstance(literal, str))


def _toggled(value: str, *, now: frozenset[str]) -> str:
    return f"with {value}" if value in now else f"without {value}"


def _comparisons(node: Any) -> Iterator[tuple[Attribute, str | int]]:
    if isinstance(node, pst.BinaryOp):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            attribute = _attribute(one)
            if attribute:
                yield from ((attribute, literal) for literal in _literals(other))
    for inner in _inner(node):
        yield from _comparisons(inner)


def _attribute(node: pst.Expr) -> Attribute:
    match node:
        case pst.GetAttr(base=pst.Var(name=variable), attr=name):
            return variable, name
        case pst.GetAttr(base=base, attr=name):
            outer = _attribute(base)
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


def _inner(node: Any) -> Iterator[Any]:
    if not is_dataclass(node):
        return
    for each in fields(node):
        value = getattr(node, each.name)
        values = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
        yield from (one for one in values if is_dataclass(one))
