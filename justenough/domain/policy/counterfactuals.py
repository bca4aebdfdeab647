"""Variations of a request: each changes one fact to a value with which the policies compare it. No I/O, no clock.

A fact that no policy compares with a literal is not varied (`like` patterns, sums, comparisons of two attributes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from cedarpy import pst

from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import Agent
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.policy.cedar_request import AccessContext, JobFacts, Phase
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.partial_evaluation import walk

Attribute = tuple[str, ...]
"""`("context", "ttl_seconds")`, `("principal", "agent", "name")`."""
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


@dataclass(frozen=True, slots=True)
class RequestVariations:
    """Varies requests for one action on one resource."""

    literals: Mapping[Attribute, frozenset[str | int]]
    """The literals with which the policies that can apply compare each attribute."""
    mentioned: frozenset[tuple[str, str]]
    """The attributes that these policies read."""
    max_ttl: int
    """Seconds."""

    @classmethod
    def of(cls, rules: PolicyEvaluator, name: str, action: Action) -> Self:
        """Prepare the variations of requests for an action on the named resource."""
        resource = rules.catalog.resources[name]
        literals = _compared_literals(item.template for item in rules.policies.remainders(name, resource, action))
        return cls(literals, rules.policies.relevant_attributes(name, resource, action), resource.actions[action].max_ttl)

    def vary(self, job: JobFacts, context: AccessContext, *, environments: Iterable[str] = ()) -> Iterator[Variation]:
        """Yield the request with each fact changed. `environments`: values of `environment` to try, even if no policy names them."""
        yield from self._vary_order(job, context, environments)
        yield from self._vary_circumstances(job, context)

    def _vary_order(self, job: JobFacts, context: AccessContext, environments: Iterable[str]) -> Iterator[Variation]:
        """Yield the request with each fact of the job and its access changed; ttls from the shortest, up to the maximum."""
        for seconds in self._neighbours("ttl_seconds", range(1, self.max_ttl + 1), context.ttl_seconds):
            yield Variation("ttl", duration_text(seconds), job, replace(context, ttl_seconds=seconds), seconds - context.ttl_seconds)
        spec, agent = job.spec, job.spec.agent or NO_AGENT
        for name in sorted({*environments, *self._texts("principal", "environment")} - {spec.environment}):
            yield Variation("environment", name, _with_spec(job, "environment", name), context)
        for group in self._texts("principal", "requester_groups"):
            groups = job.requester_groups ^ {group}
            yield Variation("requester_groups", _toggle_text(group, groups), replace(job, requester_groups=groups), context)
        for field, pairs in (("labels", spec.labels), ("data_scope", spec.data_scope)):
            for pair in self._texts("principal", field):
                name, sign, value = pair.partition("=")
                others = {key: other for key, other in pairs.items() if key != name}
                changed = others if pairs.get(name) == value else {**pairs, name: value}
                if sign:
                    yield Variation(field, f"{'without' if changed is others else 'with'} {pair}", _with_spec(job, field, changed), context)
        yield from (
            Variation(field, text, _with_spec(job, field, text), context)
            for field in ("name", "task")
            for text in self._texts("principal", field, besides=getattr(spec, field))
        )
        yield from (
            Variation(f"agent.{field}", text, _with_spec(job, "agent", agent.model_copy(update={field: text})), context)
            for field in Agent.model_fields
            for text in self._texts("principal", "agent", field, besides=getattr(agent, field))
        )
        for person in self._texts("principal", "requester", besides=job.requester):
            yield Variation("requester", person, replace(job, requester=person), context)
        for text in self._texts("context", "reason", besides=context.reason):
            yield Variation("reason", text, job, replace(context, reason=text))

    def _vary_circumstances(self, job: JobFacts, context: AccessContext) -> Iterator[Variation]:
        """Yield the request with each circumstance changed: data touched, access held, counts, time; phase and break-glass if a policy reads them."""
        held, clock = context.held, context.clock
        for level in self._neighbours("touched", range(len(Sensitivity)), held.touched):
            touched = Sensitivity(level)
            changed = replace(context, held=held.model_copy(update={"touched": touched}))
            yield Variation("touched", touched.name.lower(), job, changed, level - held.touched)
        for item in self._texts("context", "held"):
            live = held.held ^ {item}
            yield Variation("held", _toggle_text(item, live), job, replace(context, held=held.model_copy(update={"held": live})))
        for hour in self._neighbours("hour", range(24), clock.hour):
            yield Variation("hour", str(hour), job, replace(context, clock=replace(clock, hour=hour)), hour - clock.hour)
        for weekday in self._neighbours("weekday", range(1, 8), clock.weekday):
            yield Variation("weekday", str(weekday), job, replace(context, clock=replace(clock, weekday=weekday)), weekday - clock.weekday)
        for count in self._neighbours("issued_count", range(1000), held.issued_count):
            changed = replace(context, held=held.model_copy(update={"issued_count": count}))
            yield Variation("issued_count", str(count), job, changed, count - held.issued_count)
        if ("context", "phase") in self.mentioned:
            yield from (Variation("phase", phase, job, replace(context, phase=phase)) for phase in PHASES if phase != context.phase)
        if ("context", "break_glass") in self.mentioned:
            other = not context.break_glass
            yield Variation("break_glass", "declared" if other else "not declared", job, replace(context, break_glass=other))

    def _neighbours(self, attribute: str, possible: range, current: int) -> list[int]:
        """Return each number that policies compare a context attribute with, and its neighbours; not the current value or impossible values."""
        limits = [limit for limit in self.literals.get(("context", attribute), ()) if isinstance(limit, int)]
        return sorted({near for limit in limits for near in (limit - 1, limit, limit + 1) if near in possible} - {current})

    def _texts(self, *attribute: str, besides: str | None = None) -> list[str]:
        return sorted(literal for literal in self.literals.get(attribute, ()) if isinstance(literal, str) and literal != besides)


def _toggle_text(value: str, changed: frozenset[str]) -> str:
    return f"with {value}" if value in changed else f"without {value}"


def _with_spec(job: JobFacts, field: str, value: object) -> JobFacts:
    return replace(job, spec=job.spec.model_copy(update={field: value}))


def _compared_literals(policies: Iterable[pst.Template]) -> dict[Attribute, frozenset[str | int]]:
    literals = defaultdict[Attribute, set[str | int]](set)
    for node in walk(tuple(policy.clauses for policy in policies)):
        if isinstance(node, pst.BinaryOp):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                attribute = _attribute_path(side)
                if attribute and isinstance(other, pst.StringLit | pst.LongLit | pst.Set):
                    literals[attribute].update(literal.value for literal in walk(other) if isinstance(literal, pst.StringLit | pst.LongLit))
    return {attribute: frozenset(values) for attribute, values in literals.items() if values}


def _attribute_path(node: pst.Expr) -> Attribute:
    match node:
        case pst.GetAttr(base=pst.Var(name=variable), attr=name):
            return variable, name
        case pst.GetAttr(base=base, attr=name):
            outer = _attribute_path(base)
            return (*outer, name) if outer else ()
    return ()
