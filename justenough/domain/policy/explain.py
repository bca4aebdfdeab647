"""Why policy decides a spec's requests as it does, and what would make it decide otherwise. No I/O, no clock.

What would change it is tried, never guessed: a policy less, one fact changed (justenough/domain/policy/counterfactuals.py), one request of the spec
before another in either order. Two changes at once are not tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.loader import Catalog, problems_of
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.credentials import Decision, Held
from justenough.domain.jobs.spec import JobSpec
from justenough.domain.policy.cedar_request import Clock, JobFacts, Phase
from justenough.domain.policy.counterfactuals import Varied, compared, counted, switched, touching, varied
from justenough.domain.policy.dry_run import Rules, Step, rehearsed
from justenough.domain.policy.engine import DEFAULT_DENY, DOUBLE_LOCK, NO_POLICIES, PolicySet
from justenough.domain.policy.tier_result import Weighed


class PolicyAt(Message):
    """A policy that decides, and where it stands."""

    id: str
    effect: str
    place: str
    """`policies/writes.cedar:7:1`; empty for what no policy says (`default-deny`; `double-lock`: the catalog's lock_tier)."""


class TierSaid(Message):
    """What policy says at one tier, looked at alone. A request needs the least such that it and all above allow."""

    tier: int
    name: str
    """As in approvals.yaml; empty for 0."""
    approvers: tuple[str, ...]
    """Groups."""
    quorum: int
    allows: bool
    policies: tuple[str, ...]
    """The forbids that hold there, else the permits."""


class Change(Message):
    """What would make the outcome another, and which."""

    fact: str
    """`policy`, `order`, `ttl`, `environment`, `requester_groups`, …"""
    value: str
    """What it would be instead: `without no-export-after-restricted`, `after request 1 (customers-db read)`, `5m`."""
    outcome: str
    tier: int
    policies: tuple[str, ...]


class RequestExplained(Message):
    """One request of the spec."""

    number: int
    resource: str
    action: str
    ttl: int
    """Seconds."""
    optional: bool
    outcome: str
    tier: int
    policies: tuple[PolicyAt, ...]
    errors: tuple[str, ...]
    tiers: tuple[TierSaid, ...]
    changes: tuple[Change, ...]


class Explained(Message):
    """A spec's requests as policy decides them, on these assumptions about who launches it."""

    name: str
    environment: str
    requester: str
    requester_groups: tuple[str, ...]
    hour: int
    """UTC, as is the next."""
    weekday: int
    policy_digest: str
    problems: tuple[str, ...]
    """What else stands against launching it: a ttl over the maximum, another environment than the resource's, a scope that is missing."""
    requests: tuple[RequestExplained, ...]


def must_be_there(what: str, spec: JobSpec, catalog: Catalog) -> None:
    """Raise InvalidInput, with all that the catalog has against a spec, where it asks for what is not there at all."""
    resources = catalog.resources
    if any(one.resource not in resources or one.action not in resources[one.resource].actions for one in spec.access):
        raise InvalidInput(what, problems_of(spec, catalog))


def explained(rules: Rules, tiers: Tiers, job: JobFacts, *, clock: Clock, break_glass: bool = False, phase: Phase = "start") -> Explained:
    """Return why each request of a job's spec is decided as it is. Each resource and action must be in the catalog."""
    steps = tuple(rehearsed(rules, job, clock=clock, phase=phase, break_glass=break_glass))
    return Explained(
        name=job.spec.name,
        environment=job.spec.environment,
        requester=job.requester,
        requester_groups=tuple(sorted(job.requester_groups)),
        hour=clock.hour,
        weekday=clock.weekday,
        policy_digest=rules.policies.digest,
        problems=tuple(map(str, problems_of(job.spec, rules.catalog))),
        requests=tuple(_request(rules, tiers, job, step, steps) for step in steps),
    )


def places(policies: PolicySet, ids: Iterable[str]) -> tuple[PolicyAt, ...]:
    """Return where these policies stand."""
    rules = {rule.id: rule for rule in policies.rules}
    found = []
    for name in ids:
        rule = rules.get(name)
        if rule is None:
            assert name in {DEFAULT_DENY, DOUBLE_LOCK, NO_POLICIES}, name
        found.append(PolicyAt(id=name, effect=rule.template.effect if rule else "forbid", place=f"policies/{rule.place}" if rule else ""))
    return tuple(found)


def _request(rules: Rules, tiers: Tiers, job: JobFacts, step: Step, steps: tuple[Step, ...]) -> RequestExplained:
    access, decision = step.access, step.decision
    weighed = rules.weighed(job, access, step.context)
    return RequestExplained(
        number=step.number,
        resource=access.resource,
        action=access.action.value,
        ttl=access.ttl,
        optional=access.optional,
        outcome=decision.outcome,
        tier=decision.tier,
        policies=places(rules.policies, decision.policies),
        errors=decision.errors,
        tiers=() if decision.errors else tuple(_tier(weighed, tiers, number) for number in range(rules.top + 1)),
        changes=tuple(_changes(rules, job, step, steps, weighed)),
    )


def _tier(weighed: Weighed, tiers: Tiers, number: int) -> TierSaid:
    known = tiers.tiers.get(number)
    return TierSaid(
        tier=number,
        name=known.name if known else "",
        approvers=known.approvers if known else (),
        quorum=known.quorum if known else 0,
        allows=weighed.allows(number),
        policies=weighed.forbids[number] or weighed.permits[number],
    )


def _changes(rules: Rules, job: JobFacts, step: Step, steps: tuple[Step, ...], weighed: Weighed) -> Iterator[Change]:
    if not step.decision.errors:
        yield from _policy_changes(rules, step.decision, weighed)
    yield from _order_changes(rules, job, step, steps)
    yield from _fact_changes(rules, job, step)


def _policy_changes(rules: Rules, decision: Decision, weighed: Weighed) -> Iterator[Change]:
    """Yield what each forbid does; where only all of them together do something, that."""
    forbids = [rule.id for rule in rules.policies.rules if rule.template.effect == "forbid" and rule.id in decision.policies]
    sets = [[one] for one in forbids] + ([forbids] if len(forbids) > 1 else [])
    found = [
        _change("policy", f"without {' and '.join(some)}", other)
        for some in sets
        if _differs(other := rules.policies.decided(weighed.without(some), top=rules.top), decision)
    ]
    single = [change for change in found if " and " not in change.value]
    yield from single or found


def _order_changes(rules: Rules, job: JobFacts, step: Step, steps: tuple[Step, ...]) -> Iterator[Change]:
    """Yield where it matters that another request of the spec comes before this one, or would."""
    counted = [other for other in steps if other.number < step.number and other.decision.outcome != "denied"]
    found = []
    for other in steps:
        if other.number == step.number:
            continue
        earlier = other in counted
        others = [one for one in counted if one is not other] if earlier else [*counted, other]
        decision = _after(rules, job, step, others)
        if _differs(decision, step.decision):
            what = f"request {other.number} ({other.access.resource} {other.access.action})"
            found.append(_change("order", f"{'before' if earlier else 'after'} {what}", decision))
    alone = _after(rules, job, step, [])
    if not any(change.value.startswith("before") for change in found) and _differs(alone, step.decision):
        found.append(_change("order", "before every other request", alone))
    yield from found


def _fact_changes(rules: Rules, job: JobFacts, step: Step) -> Iterator[Change]:
    access, resource = step.access, rules.resource(step.access)
    left = [item.template for item in rules.policies.remainders(access.resource, resource, access.action)]
    environments = {known.environment for known in rules.catalog.resources.values()}
    looks_at = rules.policies.looks_at(access.resource, resource, access.action)
    tries = [
        *varied(job, step.context, compared(left), max_ttl=resource.actions[access.action].max_ttl, environments=environments),
        *touching(job, step.context, compared(left)),
        *counted(job, step.context, compared(left)),
        *switched(job, step.context, looks_at),
    ]
    results = [(one, rules.decided(one.job, access, one.context)) for one in tries]
    different = [(one, decision) for one, decision in results if _differs(decision, step.decision)]
    yield from (_change(one.fact, one.value, decision) for one, decision in _nearest(different))


def _nearest(found: list[tuple[Varied, Decision]]) -> Iterator[tuple[Varied, Decision]]:
    """Yield of what has an order only the nearest on each side with each outcome; everything else as it is."""
    seen: set[tuple[str, bool, str, int]] = set()
    for one, decision in sorted(found, key=lambda item: abs(item[0].distance)):
        key = (one.fact, one.distance > 0, decision.outcome, decision.tier)
        if not one.distance or key not in seen:
            seen.add(key)
            yield one, decision


def _after(rules: Rules, job: JobFacts, step: Step, others: Iterable[Step]) -> Decision:
    held = Held()
    for other in others:
        held = rules.after(held, other.access.resource, other.access.action)
    return rules.decided(job, step.access, replace(step.context, held=held))


def _differs(one: Decision, other: Decision) -> bool:
    return (one.outcome, one.tier) != (other.outcome, other.tier)


def _change(fact: str, value: str, decision: Decision) -> Change:
    return Change(fact=fact, value=value, outcome=decision.outcome, tier=decision.tier, policies=decision.policies)
