"""Finds oddities in a valid set of policies: policies that never apply, actions that are never allowed, tiers that contradict each other. No I/O, no clock.

"Never" follows from the catalog alone, so it is true of every request; a finding is never a guess. If tiers contradict each other only for
some requests, the finding shows one of them. To find it, the check tries requests with the values that the policies compare facts with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK
from justenough.domain.policy.counterfactuals import RequestVariations, Variation
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.tier_result import Remainder

MAX_TRIES = 500
"""Maximum number of requests that are tried per action."""


class LintFindingKind(StrEnum):
    UNREACHABLE = "unreachable"
    """A policy never decides anything."""
    NEVER_ALLOWED = "never-allowed"
    """No policy allows anybody an action of the catalog."""
    NO_APPROVERS = "no-approvers"
    """The action needs a tier that approvals.yaml does not define."""
    NOT_MONOTONE = "not-monotone"
    """The action is allowed at a tier, but not at a higher one."""


class LintFinding(Message):
    """One oddity."""

    kind: LintFindingKind
    where: str
    """A policy's location, or `resource:action`."""
    message: str
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _LintedAction:
    """One action on one resource, and the policies that can apply to it at each tier."""

    name: str
    action: Action
    remainders: tuple[Remainder, ...]

    def permits(self, tier: int) -> list[str]:
        return [item.rule.id for item in self.remainders if tier in item.tiers and item.rule.template.effect == "permit"]

    def bars(self, tier: int) -> list[str]:
        """Return the `forbid` policies that apply to everybody."""
        forbids = (item for item in self.remainders if tier in item.tiers and item.rule.template.effect == "forbid")
        return [item.rule.id for item in forbids if item.unconditional]

    def can(self, tier: int) -> bool:
        """Whether anybody might be allowed at this tier, regardless of the tiers above."""
        return bool(self.permits(tier)) and not self.bars(tier)

    def permits_and_bars(self, lower: int, higher: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.permits(lower), *self.bars(higher))))

    def build_finding(self, kind: LintFindingKind, message: str, policies: tuple[str, ...]) -> LintFinding:
        return LintFinding(kind=kind, where=f"{self.name}:{self.action}", message=message, policies=policies)


def lint_policies(rules: PolicyEvaluator, groups: frozenset[str]) -> tuple[LintFinding, ...]:
    """Return the findings about policies, then those about actions. `groups`: the groups of a usual launcher."""
    actions = [
        _LintedAction(name, action, rules.policies.remainders(name, resource, action))
        for name, resource in rules.catalog.resources.items()
        for action in sorted(resource.actions)
    ]
    if not actions:
        # In a new catalog there is nothing that policies could decide.
        return ()
    return (*_policy_findings(rules, actions), *(finding for action in actions for finding in _action_findings(rules, action, groups)))


def _policy_findings(rules: PolicyEvaluator, actions: list[_LintedAction]) -> Iterator[LintFinding]:
    forbids: tuple[str, ...]
    for rule in rules.policies.rules:
        places = [(action, tier) for action in actions for item in action.remainders if item.rule.id == rule.id for tier in item.tiers]
        lowest = min((tier for _, tier in places), default=None)
        kind, forbids = LintFindingKind.UNREACHABLE, ()
        if lowest is None:
            message = "decides nothing: no action of the catalog meets its conditions at any tier"
        elif lowest > rules.top:
            kind = LintFindingKind.NO_APPROVERS
            message = f"decides nothing below tier {lowest}, but approvals.yaml has no tier above {rules.top}"
        else:
            bars = [action.bars(tier) for action, tier in places if tier <= rules.top]
            if rule.template.effect != "permit" or not all(bars):
                continue
            forbids = tuple(dict.fromkeys(policy for policies in bars for policy in policies))
            message = f"decides nothing: {', '.join(forbids)} forbids everything it permits"
        yield LintFinding(kind=kind, where=f"policies/{rule.place}", message=message, policies=(rule.id, *forbids))


def _action_findings(rules: PolicyEvaluator, action: _LintedAction, groups: frozenset[str]) -> Iterator[LintFinding]:
    top = rules.top
    possible = [tier for tier in range(top + 1) if action.can(tier)]
    if top in possible:
        yield from _monotony_findings(rules, action, possible, groups)
    elif possible:
        tier = possible[-1]
        message = f"allowed at tier {tier} but not at tier {tier + 1}, so it is always denied"
        yield action.build_finding(LintFindingKind.NOT_MONOTONE, message, action.permits_and_bars(tier, tier + 1))
    elif above := [tier for tier in range(top + 1, MAX_TIER + 1) if action.can(tier)]:
        message = f"needs tier {above[0]}, but approvals.yaml has no tier above {top}, so it is always denied"
        yield action.build_finding(LintFindingKind.NO_APPROVERS, message, tuple(action.permits(above[0])))
    else:
        forbids = tuple(action.bars(top)) if action.permits(top) else ()
        reason = f"{', '.join(forbids)} forbids it to everybody" if forbids else "no policy permits it to anybody"
        yield action.build_finding(LintFindingKind.NEVER_ALLOWED, f"always denied: {reason}", forbids)


def _monotony_findings(rules: PolicyEvaluator, action: _LintedAction, possible: list[int], groups: frozenset[str]) -> Iterator[LintFinding]:
    """Yield a finding if a lower tier allows and a higher tier does not: for everybody, or else for an example request."""
    gap = next((tier for tier in range(possible[0], rules.top) if tier not in possible), None)
    if gap is not None:
        needed = next(tier for tier in possible if all(above in possible for above in range(tier, rules.top + 1)))
        message = f"allowed at tier {possible[0]} but not at tier {gap}, so it needs tier {needed}"
        yield action.build_finding(LintFindingKind.NOT_MONOTONE, message, action.permits_and_bars(possible[0], gap))
        return
    job, access, context = rules.plain_request(action.name, action.action, groups, DEFAULT_CLOCK)
    for request, description in islice(_trial_requests(rules, action, Variation("", "", job, context)), MAX_TRIES):
        result = rules.evaluate(request.job, access, request.context)
        allowed = [tier for tier in range(rules.top + 1) if result.allows(tier)]
        broken = next((tier for tier in range(min(allowed), rules.top + 1) if tier not in allowed), None) if allowed else None
        if broken is not None:
            message = f"{description} allowed at tier {allowed[0]} but not at tier {broken}"
            yield action.build_finding(LintFindingKind.NOT_MONOTONE, message, (*result.permits[allowed[0]], *result.forbids[broken]))
            return


def _trial_requests(rules: PolicyEvaluator, action: _LintedAction, plain: Variation) -> Iterator[tuple[Variation, str]]:
    """Yield a plain request, then requests with one changed fact, then with two; each with its description."""
    variations = RequestVariations.of(rules, action.name, action.action)
    yield plain, "a plain request is"
    for first in variations.vary(plain.job, plain.context):
        yield first, f"a request with {first.fact} {first.value} is"
    for first in variations.vary(plain.job, plain.context):
        for second in variations.vary(first.job, first.context):
            yield second, f"a request with {first.fact} {first.value} and {second.fact} {second.value} is"
