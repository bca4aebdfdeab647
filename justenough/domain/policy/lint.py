"""What is odd about a set of policies that is correct: what can never hold, who is never allowed, tiers that contradict. No I/O, no clock.

"Never" is found by what is known of the catalog alone, so it holds for every request; a finding is never a guess. That tiers contradict
for some requests only is shown by one such request, looked for among those that the policies' own literals suggest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from justenough.domain.catalog.models import Resource
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.spec import Access, JobSpec, RunSpec
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import DEFAULT_CLOCK, AccessContext, JobFacts
from justenough.domain.policy.counterfactuals import Variation, compared_literals, vary_counts, vary_facts, vary_switches, vary_touched
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.policy.tier_result import MAX_TIER, Remainder

MAX_TRIES = 500
"""Requests that are tried for each action, at most."""


class LintFindingKind(StrEnum):
    UNREACHABLE = "unreachable"
    """A policy that can decide nothing."""
    NEVER_ALLOWED = "never-allowed"
    """An action of the catalog that no policy allows anybody."""
    NO_APPROVERS = "no-approvers"
    """It needs a tier that approvals.yaml does not have."""
    NOT_MONOTONE = "not-monotone"
    """Allowed at a tier, and not at a higher one."""


class LintFinding(Message):
    """One odd thing."""

    kind: LintFindingKind
    where: str
    """A policy's place, or `resource:action`."""
    message: str
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _LintedAction:
    """One action on one resource, and what can hold for it at each tier."""

    name: str
    resource: Resource
    action: Action
    left: tuple[Remainder, ...]

    @property
    def where(self) -> str:
        return f"{self.name}:{self.action}"

    def permits(self, tier: int) -> list[str]:
        return [item.rule.id for item in self.left if tier in item.tiers and item.rule.template.effect == "permit"]

    def bars(self, tier: int) -> list[str]:
        """Return the forbids that hold for everybody."""
        forbids = (item for item in self.left if tier in item.tiers and item.rule.template.effect == "forbid")
        return [item.rule.id for item in forbids if item.unconditional]

    def can(self, tier: int) -> bool:
        """Whether anybody might be allowed at a tier, looked at alone."""
        return bool(self.permits(tier)) and not self.bars(tier)


def lint_policies(rules: PolicyEvaluator, groups: frozenset[str]) -> tuple[LintFinding, ...]:
    """Return what is odd, policies first. `groups`: those of who usually launches."""
    questions = [
        _LintedAction(name, resource, action, rules.policies.remainders(name, resource, action))
        for name, resource in rules.catalog.resources.items()
        for action in sorted(resource.actions)
    ]
    return (*_unreachable_findings(rules, questions), *(found for asked in questions for found in _action_findings(rules, asked, groups)))


def _unreachable_findings(rules: PolicyEvaluator, questions: list[_LintedAction]) -> Iterator[LintFinding]:
    for rule in rules.policies.rules:
        left = [(asked, item) for asked in questions for item in asked.left if item.rule.id == rule.id]
        tiers = {tier for _, item in left for tier in item.tiers}
        if not tiers:
            message = "decides nothing: no action of the catalog meets its conditions at any tier"
            yield LintFinding(kind=LintFindingKind.UNREACHABLE, where=f"policies/{rule.place}", message=message, policies=(rule.id,))
        elif min(tiers) > rules.top:
            message = f"decides nothing below tier {min(tiers)}, and approvals.yaml has no tier above {rules.top}"
            yield LintFinding(kind=LintFindingKind.NO_APPROVERS, where=f"policies/{rule.place}", message=message, policies=(rule.id,))
        elif rule.template.effect == "permit":
            yield from _barred_findings(rules, rule.id, f"policies/{rule.place}", left)


def _barred_findings(rules: PolicyEvaluator, name: str, where: str, left: list[tuple[_LintedAction, Remainder]]) -> Iterator[LintFinding]:
    """Yield a permit that everywhere meets a forbid which holds for everybody."""
    bars = [asked.bars(tier) for asked, item in left for tier in item.tiers if tier <= rules.top]
    if all(bars):
        by = tuple(dict.fromkeys(bar for some in bars for bar in some))
        message = f"decides nothing: {', '.join(by)} forbids whatever it permits"
        yield LintFinding(kind=LintFindingKind.UNREACHABLE, where=where, message=message, policies=(name, *by))


def _action_findings(rules: PolicyEvaluator, action: _LintedAction, groups: frozenset[str]) -> Iterator[LintFinding]:
    top = rules.top
    possible = [tier for tier in range(top + 1) if action.can(tier)]
    if top in possible:
        yield from _monotony_findings(rules, action, possible, groups)
    elif possible:
        message = f"allowed at tier {possible[-1]} alone and not at tier {possible[-1] + 1}; so it is always denied"
        yield LintFinding(
            kind=LintFindingKind.NOT_MONOTONE,
            where=action.where,
            message=message,
            policies=_permits_and_bars(action, possible[-1], possible[-1] + 1),
        )
    elif above := [tier for tier in range(top + 1, MAX_TIER + 1) if action.can(tier)]:
        message = f"needs tier {above[0]}, and approvals.yaml has no tier above {top}; so it is always denied"
        yield LintFinding(kind=LintFindingKind.NO_APPROVERS, where=action.where, message=message, policies=tuple(action.permits(above[0])))
    else:
        by = tuple(action.bars(top)) if action.permits(top) else ()
        message = f"always denied: {', '.join(by)} forbids it to everybody" if by else "always denied: no policy permits it to anybody"
        yield LintFinding(kind=LintFindingKind.NEVER_ALLOWED, where=action.where, message=message, policies=by)


def _monotony_findings(rules: PolicyEvaluator, action: _LintedAction, possible: list[int], groups: frozenset[str]) -> Iterator[LintFinding]:
    """Yield where a lower tier allows and a higher one does not: for everybody, else for one request that shows it."""
    gap = next((tier for tier in range(possible[0], rules.top) if tier not in possible), None)
    if gap is not None:
        needed = next(tier for tier in possible if all(above in possible for above in range(tier, rules.top + 1)))
        message = f"allowed at tier {possible[0]} and not at tier {gap}; so it needs tier {needed}"
        yield LintFinding(
            kind=LintFindingKind.NOT_MONOTONE, where=action.where, message=message, policies=_permits_and_bars(action, possible[0], gap)
        )
        return
    for one, told in _trial_requests(rules, action, groups):
        weighed = rules.evaluate(one.job, _to_access(action), one.context)
        allowed = [tier for tier in range(rules.top + 1) if weighed.allows(tier)]
        broken = next((tier for tier in range(min(allowed), rules.top + 1) if tier not in allowed), None) if allowed else None
        if broken is not None:
            by = (*weighed.permits[allowed[0]], *weighed.forbids[broken])
            message = f"{told} allowed at tier {allowed[0]} and not at tier {broken}"
            yield LintFinding(kind=LintFindingKind.NOT_MONOTONE, where=action.where, message=message, policies=by)
            return


def _trial_requests(rules: PolicyEvaluator, action: _LintedAction, groups: frozenset[str]) -> Iterator[tuple[Variation, str]]:
    """Yield a plain request, those with one fact changed, and those with two, as far as `TRIES` goes; each with how it is told."""
    left = [item.template for item in action.left]
    literals, longest = compared_literals(left), action.resource.actions[action.action].max_ttl
    looks_at = rules.policies.relevant_attributes(action.name, action.resource, action.action)
    spec = JobSpec(name="job", task="-", environment=action.resource.environment, run=RunSpec(command=("true",)))
    plain = Variation("", "", JobFacts("check", spec, "", groups), AccessContext("start", longest, "-", DEFAULT_CLOCK))

    def others(one: Variation) -> Iterator[Variation]:
        yield from vary_facts(one.job, one.context, literals, max_ttl=longest)
        yield from vary_touched(one.job, one.context, literals)
        yield from vary_counts(one.job, one.context, literals)
        yield from vary_switches(one.job, one.context, looks_at)

    def every() -> Iterator[tuple[Variation, str]]:
        yield plain, "a plain request is"
        for one in others(plain):
            yield one, f"a request with {one.fact} {one.value} is"
        for one in others(plain):
            for two in others(one):
                yield two, f"a request with {one.fact} {one.value} and {two.fact} {two.value} is"

    return islice(every(), MAX_TRIES)


def _to_access(action: _LintedAction) -> Access:
    return Access(resource=action.name, action=action.action, ttl=1, reason="-")


def _permits_and_bars(action: _LintedAction, lower: int, higher: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*action.permits(lower), *action.bars(higher))))
