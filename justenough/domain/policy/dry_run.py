"""Decides a spec's requests before it runs, each as if the earlier ones had been issued. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from justenough.domain.approvals.tiers import MAX_TIER
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.catalog.models import Catalog
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import Access, JobSpec, RunSpec
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import AccessContext, Clock, JobFacts, Phase
from justenough.domain.policy.ceiling import beyond_of
from justenough.domain.policy.engine import PolicySet
from justenough.domain.policy.tier_result import TierResult
from justenough.domain.tools.call import DEFAULT_TTL_S, CallAccess, ToolCall, action_of, let_tool_through, tool_only_items


@dataclass(frozen=True, slots=True)
class PolicyEvaluator:
    """The policies, the catalog they refer to, and the highest tier that has approvers."""

    policies: PolicySet
    catalog: Catalog
    top: int = MAX_TIER

    def evaluate(self, job: JobFacts, access: Access, context: AccessContext) -> TierResult:
        """Return which policies apply to an access in these circumstances."""
        resource = self.catalog.resources[access.resource]
        return self.policies.evaluate(job, access.resource, resource, access.action, context=context)

    def decide(self, job: JobFacts, access: Access, context: AccessContext) -> Decision:
        return self.policies.to_decision(self.evaluate(job, access, context), top=self.top)

    def plain_request(self, name: str, action: Action, groups: frozenset[str], clock: Clock) -> tuple[JobFacts, Access, AccessContext]:
        """Return a plain request for an action: at a job's start, in the resource's environment, for the longest time, by a member of these groups."""
        resource = self.catalog.resources[name]
        spec = JobSpec(name="job", task="-", environment=resource.environment, run=RunSpec(command=("true",)))
        access = Access(resource=name, action=action, ttl=resource.actions[action].max_ttl, reason="-")
        return JobFacts("plain", spec, "", groups), access, AccessContext("start", access.ttl, access.reason, clock)

    def with_issued(self, held: HeldAccess, resource: str, action: Action) -> HeldAccess:
        """Return the held access after one more credential was issued."""
        return held.with_issued(resource, action, self.catalog.resources[resource].sensitivity)


@dataclass(frozen=True, slots=True)
class DryRunStep:
    """One request of a spec and its decision at the start."""

    number: int
    access: Access
    context: AccessContext
    decision: Decision


def dry_run_spec(
    rules: PolicyEvaluator,
    job: JobFacts,
    *,
    clock: Clock,
    phase: Phase = "start",
    break_glass: bool = False,
    held: HeldAccess | None = None,
) -> Iterator[DryRunStep]:
    """Yield the decision on each request in the order of the spec, which must have been checked against the catalog.

    `held`: the access at the start. A request is decided as if those before it had been issued: at the start, those of the start that the
    spec lists above it; while the job runs, also all those of the start.
    """
    held, steps = held or HeldAccess(), list[DryRunStep]()
    # The sort is stable: it puts the requests of the start first.
    for number, access in sorted(enumerate(job.spec.access, start=1), key=lambda item: item[1].at == "request"):
        at = phase if access.at == "start" else "runtime"
        context = AccessContext(at, access.ttl, access.reason, clock, held=held, break_glass=break_glass)
        decision = rules.decide(job, access, context)
        steps.append(DryRunStep(number, access, context, decision))
        if decision.outcome != "denied":
            held = rules.with_issued(held, access.resource, access.action)
    yield from sorted(steps, key=lambda step: step.number)


def dry_run_tools(rules: PolicyEvaluator, job: JobFacts, *, clock: Clock, held: HeldAccess) -> Iterator[tuple[str, DryRunStep]]:
    """Yield the tools that a running job may call at all, each with the decision on the access that a first call needs.

    `held`: the access that the job holds at that time. The steps have the number 0.
    """
    for name, tool in rules.catalog.callable.items():
        action = action_of(tool.uses, name)
        definition = rules.catalog.action(tool.uses.resource, action) if action else None
        if action is None or definition is None:
            continue
        only = tool_only_items(job.spec, tool.uses.resource, action)
        ttl = min(DEFAULT_TTL_S, definition.max_ttl)
        access = Access(resource=tool.uses.resource, action=action, ttl=ttl, reason=f"A call of {name}", at="request")
        call = CallAccess(**dict(access), call=ToolCall(tool=name, arguments={}))
        spec = job.spec.model_copy(update={"access": (call,), "model": None})
        if not let_tool_through(only, name) or problems_in_spec(spec, rules.catalog):
            continue
        context = AccessContext("runtime", ttl, access.reason, clock, held=held, beyond=beyond_of(job.spec, call, rules.catalog))
        yield name, DryRunStep(0, access, context, rules.decide(job, access, context))
