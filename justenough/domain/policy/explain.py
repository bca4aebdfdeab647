"""Explains why policy decides a spec's requests as it does, and which changes would lead to another decision. No I/O, no clock.

Every reported change was evaluated: without a policy, with one changed fact (justenough/domain/policy/counterfactuals.py), with the
spec's requests in another order. Combinations of changes are not tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.units import duration_text
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import JobSpec
from justenough.domain.jobs.states import BEYOND_ORDER, Action, Beyond
from justenough.domain.policy.cedar_request import Clock, JobFacts, Phase
from justenough.domain.policy.counterfactuals import RequestVariations
from justenough.domain.policy.dry_run import DryRunStep, PolicyEvaluator, dry_run_spec
from justenough.domain.policy.engine import DEFAULT_DENY, DOUBLE_LOCK, NO_POLICIES, PolicySet
from justenough.domain.policy.tier_result import TierResult


class LocatedPolicy(Message):
    """A deciding policy and its location."""

    id: str
    effect: str
    place: str
    """`policies/writes.cedar:7:1`; empty for a decision source that is not a policy (`default-deny`; `double-lock`: the catalog's
    lock_tier; `beyond-order`: the order, which does not name the access).
    """
    why: str = ""
    """The comment directly above the policy, as one line."""


class TierExplanation(Message):
    """The result at one tier. A request needs the lowest tier such that it and all tiers above it allow the request."""

    tier: int
    name: str
    """As in approvals.yaml; empty for tier 0."""
    approvers: tuple[str, ...]
    """Groups."""
    quorum: int
    allows: bool
    policies: tuple[str, ...]
    """The `forbid` policies that apply at this tier, or else the `permit` policies."""


class Counterfactual(Message):
    """A change that leads to another decision, and that decision."""

    fact: str
    """`policy`, `order`, `ttl`, `environment`, `requester_groups`, …"""
    value: str
    """The changed value: `without no-export-after-restricted`, `after request 1 (customers-db read)`, `5m`."""
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
    """The decisions on a spec's requests, under these assumptions about who launches it and when."""

    name: str
    environment: str
    requester: str
    requester_groups: tuple[str, ...]
    hour: int
    """UTC, as is `weekday`."""
    weekday: int
    policy_digest: str
    beyond: Beyond
    """What happens to access and tool calls that the spec does not name."""
    problems: tuple[str, ...]
    """Other reasons why it cannot be launched: a ttl over the maximum, an environment other than the resource's, a missing scope."""
    requests: tuple[RequestExplanation, ...]


def require_known_access(what: str, spec: JobSpec, catalog: Catalog) -> None:
    """Raise InvalidInput with every catalog problem of a spec if it requests an unknown resource or action."""
    if any(catalog.action(item.resource, item.action) is None for item in spec.access):
        raise InvalidInput(what, problems_in_spec(spec, catalog))


def build_plain_spec(catalog: Catalog, name: str, action: str, *, ttl: str | None = None, environment: str | None = None) -> dict[str, Any]:
    """Return the spec of a job that only requests one action on one resource; by default for the longest time, in the resource's environment.

    Its data scope is the first of the catalog's scopes that the action accepts; none if the action needs none.

    An action that only gateways use is requested while the job runs, because a spec that requests it at the start is refused.

    Raises InvalidInput if the catalog does not have it.
    """
    resource = catalog.resources.get(name)
    if resource is None:
        raise InvalidInput(f"{name}:{action}", (Problem("", f"unknown resource {name!r}{did_you_mean(name, catalog.resources)}"),))
    if action not in resource.actions:
        why = f"no job can request {action} on {name}: the catalog has only {' and '.join(sorted(resource.actions))}"
        raise InvalidInput(f"{name}:{action}", (Problem("", why),))
    definition = resource.actions[Action(action)]
    return {
        "name": "job",
        "task": "Explain the policies",
        "environment": environment or resource.environment,
        "data_scope": dict(next(iter(catalog.scopes_with(definition.data_scope)), {})),
        "run": {"command": ["true"]},
        "access": [
            {
                "resource": name,
                "action": action,
                "ttl": ttl or duration_text(definition.max_ttl),
                "reason": "Explain the policies",
                "at": "start" if resource.used_by == "job" else "request",
            }
        ],
    }


def explain_spec(
    rules: PolicyEvaluator, tiers: Tiers, job: JobFacts, *, clock: Clock, break_glass: bool = False, phase: Phase = "start"
) -> Explanation:
    """Explain the decision on each request of a job's spec. Every resource and action must be in the catalog."""
    steps = tuple(dry_run_spec(rules, job, clock=clock, phase=phase, break_glass=break_glass))
    return Explanation(
        name=job.spec.name,
        environment=job.spec.environment,
        requester=job.requester,
        requester_groups=tuple(sorted(job.requester_groups)),
        hour=clock.hour,
        weekday=clock.weekday,
        policy_digest=rules.policies.digest,
        beyond=job.spec.beyond,
        problems=tuple(map(str, problems_in_spec(job.spec, rules.catalog))),
        requests=tuple(_explain_request(rules, tiers, job, step, steps) for step in steps),
    )


def locate_policies(policies: PolicySet, ids: Iterable[str]) -> tuple[LocatedPolicy, ...]:
    rules = {rule.id: rule for rule in policies.rules}
    located = []
    for name in ids:
        assert name in rules or name in {BEYOND_ORDER, DEFAULT_DENY, DOUBLE_LOCK, NO_POLICIES}, name
        rule = rules.get(name)
        effect, place = (rule.template.effect, f"policies/{rule.place}") if rule else ("forbid", "")
        located.append(LocatedPolicy(id=name, effect=effect, place=place, why=rule.why if rule else ""))
    return tuple(located)


def _explain_request(
    rules: PolicyEvaluator, tiers: Tiers, job: JobFacts, step: DryRunStep, steps: tuple[DryRunStep, ...]
) -> RequestExplanation:
    access, decision = step.access, step.decision
    result = rules.evaluate(job, access, step.context)
    explained = []
    for number in () if decision.errors else range(rules.top + 1):
        tier = tiers.tiers.get(number)
        explained.append(
            TierExplanation(
                tier=number,
                name=tier.name if tier else "",
                approvers=tier.approvers if tier else (),
                quorum=tier.quorum if tier else 0,
                allows=result.allows(number),
                policies=result.forbids[number] or result.permits[number],
            )
        )
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
        tiers=tuple(explained),
        changes=(*_policy_changes(rules, decision, result), *_order_changes(rules, job, step, steps), *_fact_changes(rules, job, step)),
    )


def _policy_changes(rules: PolicyEvaluator, decision: Decision, result: TierResult) -> list[Counterfactual]:
    """Return the effect of removing each `forbid` policy; if no single removal has an effect, return the effect of removing all of them."""
    if decision.errors:
        return []
    forbids = [rule.id for rule in rules.policies.rules if rule.template.effect == "forbid" and rule.id in decision.policies]

    def without(policies: list[str]) -> list[Counterfactual]:
        other = rules.policies.to_decision(result.without_policies(policies), top=rules.top)
        return _changes("policy", f"without {' and '.join(policies)}", decision, other)

    single = [change for policy in forbids for change in without([policy])]
    return single or (without(forbids) if len(forbids) > 1 else [])


def _order_changes(rules: PolicyEvaluator, job: JobFacts, step: DryRunStep, steps: tuple[DryRunStep, ...]) -> list[Counterfactual]:
    """For each other request of the spec that could be made in another order, return the effect of having it before this request or, if it
    already was, not before it.
    """

    def decide_after(earlier: Iterable[DryRunStep]) -> Decision:
        held = HeldAccess()
        for other in earlier:
            held = rules.with_issued(held, other.access.resource, other.access.action)
        return rules.decide(job, step.access, replace(step.context, held=held))

    granted = [other for other in steps if other.decision.outcome != "denied"]
    # The order of the spec changes nothing between requests of the start and those of the running job.
    fixed = [other for other in granted if other.access.at == "start"] if step.access.at == "request" else []
    movable = [other for other in steps if other.access.at == step.access.at]
    before = [other for other in granted if other in movable and other.number < step.number]
    changes: list[Counterfactual] = []
    for other in movable:
        if other.number == step.number:
            continue
        if other in before:
            side, earlier = "before", [item for item in before if item is not other]
        else:
            side, earlier = "after", [*before, other]
        what = f"{side} request {other.number} ({other.access.resource} {other.access.action})"
        changes += _changes("order", what, step.decision, decide_after([*fixed, *earlier]))
    if not any(change.value.startswith("before") for change in changes):
        what = f"before every other request{' of the running job' if fixed else ''}"
        changes += _changes("order", what, step.decision, decide_after(fixed))
    return changes


def _fact_changes(rules: PolicyEvaluator, job: JobFacts, step: DryRunStep) -> list[Counterfactual]:
    """Return the effect of each changed fact; for numbers, only the nearest value on each side that leads to each outcome."""
    access, environments = step.access, {known.environment for known in rules.catalog.resources.values()}
    variations = RequestVariations.of(rules, access.resource, access.action).vary(job, step.context, environments=environments)
    changes: list[Counterfactual] = []
    seen: set[tuple[str, bool, str, int]] = set()
    for variation in sorted(variations, key=lambda variation: abs(variation.distance)):
        decision = rules.decide(variation.job, access, variation.context)
        key = (variation.fact, variation.distance > 0, decision.outcome, decision.tier)
        if not variation.distance or key not in seen:
            seen.add(key)
            changes += _changes(variation.fact, variation.value, step.decision, decision)
    return changes


def _changes(fact: str, value: str, before: Decision, now: Decision) -> list[Counterfactual]:
    """Return the counterfactual of a decision; empty if outcome and tier stay the same."""
    if (before.outcome, before.tier) == (now.outcome, now.tier):
        return []
    return [Counterfactual(fact=fact, value=value, outcome=now.outcome, tier=now.tier, policies=now.policies)]
