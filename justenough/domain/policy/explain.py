"""Why policy decides a spec's requests as it does, and what would make it decide otherwise. No I/O, no clock.

What would change it is tried, never guessed: a policy less, one fact changed (justenough/domain/policy/counterfactuals.py), one request of the spec
before another in either order. Two changes at once are not tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import JobSpec
from justenough.domain.policy.cedar_request import Clock, JobFacts, Phase
from justenough.domain.policy.counterfactuals import Variation, compared_literals, vary_counts, vary_facts, vary_switches, vary_touched
from justenough.domain.policy.dry_run import DryRunStep, PolicyEvaluator, dry_run_spec
from justenough.domain.policy.engine import DEFAULT_DENY, DOUBLE_LOCK, NO_POLICIES, PolicySet
from justenough.domain.policy.tier_result import TierResult


class LocatedPolicy(Message):
    """A policy that decides, and where it stands."""

    id: str
    effect: str
    place: str
    """`policies/writes.cedar:7:1`; empty for what no policy says (`default-deny`; `double-lock`: the catalog's lock_tier)."""


class TierExplanation(Message):
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


class Counterfactual(Message):
    """What would make the outcome another, and which."""

    fact: str
    """`policy`, `order`, `ttl`, `environment`, `requester_groups`, …"""
    value: str
    """What it would be instead: `without no-export-after-restricted`, `after request 1 (customers-db read)`, `5m`."""
    outcome: str
    tier: int
    policies: tuple[str, ...]


class RequestExplanation(Message):
    """One request of the spec."""

    number: int
    resource: str
    action: str
    ttl: int
    """Seconds."""
    optional: bool
    outcome: str
    tier: int
    policies: tuple[LocatedPolicy, ...]
    errors: tuple[str, ...]
    tiers: tuple[TierExplanation, ...]
    changes: tuple[Counterfactual, ...]


class Explanation(Message):
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
    requests: tuple[RequestExplanation, ...]


def require_known_access(what: str, spec: JobSpec, catalog: Catalog) -> None:
    """Raise InvalidInput, with all that the catalog has against a spec, where it asks for what is not there at all."""
    resources = catalog.resources
    if any(one.resource not in resources or one.action not in resources[one.resource].actions for one in spec.access):
        raise InvalidInput(what, problems_in_spec(spec, catalog))


def explain_spec(
    rules: PolicyEvaluator, tiers: Tiers, job: JobFacts, *, clock: Clock, break_glass: bool = False, phase: Phase = "start"
) -> Explanation:
    """Return why each request of a job's spec is decided as it is. Each resource and action must be in the catalog."""
    steps = tuple(dry_run_spec(rules, job, clock=clock, phase=phase, break_glass=break_glass))
    return Explanation(
        name=job.spec.name,
        environment=job.spec.environment,
        requester=job.requester,
        requester_groups=tuple(sorted(job.requester_groups)),
        hour=clock.hour,
        weekday=clock.weekday,
        policy_digest=rules.policies.digest,
        problems=tuple(map(str, problems_in_spec(job.spec, rules.catalog))),
        requests=tuple(_explain_request(rules, tiers, job, step, steps) for step in steps),
    )


def locate_policies(policies: PolicySet, ids: Iterable[str]) -> tuple[LocatedPolicy, ...]:
    """Return where these policies stand."""
    rules = {rule.id: rule for rule in policies.rules}
    found = []
    for name in ids:
        rule = rules.get(name)
        if rule is None:
            assert name in {DEFAULT_DENY, DOUBLE_LOCK, NO_POLICIES}, name
        found.append(
            LocatedPolicy(id=name, effect=rule.template.effect if rule else "forbid", place=f"policies/{rule.place}" if rule else "")
        )
    return tuple(found)


def _explain_request(
    rules: PolicyEvaluator, tiers: Tiers, job: JobFacts, step: DryRunStep, steps: tuple[DryRunStep, ...]
) -> RequestExplanation:
    access, decision = step.access, step.decision
    weighed = rules.evaluate(job, access, step.context)
    return RequestExplanation(
        number=step.number,
        resource=access.resource,
        action=access.action.value,
        ttl=access.ttl,
        optional=access.optional,
        outcome=decision.outcome,
        tier=decision.tier,
        policies=locate_policies(rules.policies, decision.policies),
        errors=decision.errors,
        tiers=() if decision.errors else tuple(_explain_tier(weighed, tiers, number) for number in range(rules.top + 1)),
        changes=tuple(_find_changes(rules, job, step, steps, weighed)),
    )


def _explain_tier(result: TierResult, tiers: Tiers, number: int) -> TierExplanation:
    known = tiers.tiers.get(number)
    return TierExplanation(
        tier=number,
        name=known.name if known else "",
        approvers=known.approvers if known else (),
        quorum=known.quorum if known else 0,
        allows=result.allows(number),
        policies=result.forbids[number] or result.permits[number],
    )


def _find_changes(
    rules: PolicyEvaluator, job: JobFacts, step: DryRunStep, steps: tuple[DryRunStep, ...], result: TierResult
) -> Iterator[Counterfactual]:
    if not step.decision.errors:
        yield from _policy_changes(rules, step.decision, result)
    yield from _order_changes(rules, job, step, steps)
    yield from _fact_changes(rules, job, step)


def _policy_changes(rules: PolicyEvaluator, decision: Decision, result: TierResult) -> Iterator[Counterfactual]:
    """Yield what each forbid does; where only all of them together do something, that."""
    forbids = [rule.id for rule in rules.policies.rules if rule.template.effect == "forbid" and rule.id in decision.policies]
    sets = [[one] for one in forbids] + ([forbids] if len(forbids) > 1 else [])
    found = [
        _to_counterfactual("policy", f"without {' and '.join(some)}", other)
        for some in sets
        if _differs(other := rules.policies.to_decision(result.without_policies(some), top=rules.top), decision)
    ]
    single = [change for change in found if " and " not in change.value]
    yield from single or found


def _order_changes(rules: PolicyEvaluator, job: JobFacts, step: DryRunStep, steps: tuple[DryRunStep, ...]) -> Iterator[Counterfactual]:
    """Yield where it matters that another request of the spec comes before this one, or would."""
    counted = [other for other in steps if other.number < step.number and other.decision.outcome != "denied"]
    found = []
    for other in steps:
        if other.number == step.number:
            continue
        earlier = other in counted
        others = [one for one in counted if one is not other] if earlier else [*counted, other]
        decision = _decide_after(rules, job, step, others)
        if _differs(decision, step.decision):
            what = f"request {other.number} ({other.access.resource} {other.access.action})"
            found.append(_to_counterfactual("order", f"{'before' if earlier else 'after'} {what}", decision))
    alone = _decide_after(rules, job, step, [])
    if not any(change.value.startswith("before") for change in found) and _differs(alone, step.decision):
        found.append(_to_counterfactual("order", "before every other request", alone))
    yield from found


def _fact_changes(rules: PolicyEvaluator, job: JobFacts, step: DryRunStep) -> Iterator[Counterfactual]:
    access, resource = step.access, rules.resource(step.access)
    left = [item.template for item in rules.policies.remainders(access.resource, resource, access.action)]
    environments = {known.environment for known in rules.catalog.resources.values()}
    looks_at = rules.policies.relevant_attributes(access.resource, resource, access.action)
    tries = [
        *vary_facts(job, step.context, compared_literals(left), max_ttl=resource.actions[access.action].max_ttl, environments=environments),
        *vary_touched(job, step.context, compared_literals(left)),
        *vary_counts(job, step.context, compared_literals(left)),
        *vary_switches(job, step.context, looks_at),
    ]
    results = [(one, rules.decide(one.job, access, one.context)) for one in tries]
    different = [(one, decision) for one, decision in results if _differs(decision, step.decision)]
    yield from (_to_counterfactual(one.fact, one.value, decision) for one, decision in _nearest(different))


def _nearest(found: list[tuple[Variation, Decision]]) -> Iterator[tuple[Variation, Decision]]:
    """Yield of what has an order only the nearest on each side with each outcome; everything else as it is."""
    seen: set[tuple[str, bool, str, int]] = set()
    for one, decision in sorted(found, key=lambda item: abs(item[0].distance)):
        key = (one.fact, one.distance > 0, decision.outcome, decision.tier)
        if not one.distance or key not in seen:
            seen.add(key)
            yield one, decision


def _decide_after(rules: PolicyEvaluator, job: JobFacts, step: DryRunStep, others: Iterable[DryRunStep]) -> Decision:
    held = HeldAccess()
    for other in others:
        held = rules.with_issued(held, other.access.resource, other.access.action)
    return rules.decide(job, step.access, replace(step.context, held=held))


def _differs(one: Decision, other: Decision) -> bool:
    return (one.outcome, one.tier) != (other.outcome, other.tier)


def _to_counterfactual(fact: str, value: str, decision: Decision) -> Counterfactual:
    return Counterfactual(fact=fact, value=value, outcome=decision.outcome, tier=decision.tier, policies=decision.policies)
