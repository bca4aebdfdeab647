"""What policy says of a spec before anything is asked for: each request as if the earlier ones had been issued. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from justenough.domain.catalog.models import Catalog, Resource
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import AccessContext, Clock, JobFacts, Phase
from justenough.domain.policy.engine import MAX_TIER, PolicySet
from justenough.domain.policy.tier_result import TierResult


@dataclass(frozen=True, slots=True)
class PolicyEvaluator:
    """What decides: the policies, the catalog that they are asked about, and the highest tier that has approvers."""

    policies: PolicySet
    catalog: Catalog
    top: int = MAX_TIER

    def resource(self, access: Access) -> Resource:
        """Return what an access is to; the spec was checked against the catalog."""
        return self.catalog.resources[access.resource]

    def evaluate(self, job: JobFacts, access: Access, context: AccessContext) -> TierResult:
        """Return which policies hold for an access in these circumstances."""
        return self.policies.evaluate(job, access.resource, self.resource(access), access.action, context=context)

    def decide(self, job: JobFacts, access: Access, context: AccessContext) -> Decision:
        """Return what policy says of an access in these circumstances."""
        return self.policies.to_decision(self.evaluate(job, access, context), top=self.top)

    def with_issued(self, held: HeldAccess, resource: str, action: Action) -> HeldAccess:
        """Return what is held once one more was issued."""
        return held.with_issued(resource, action, self.catalog.resources[resource].sensitivity)


@dataclass(frozen=True, slots=True)
class DryRunStep:
    """One request of a spec, as it is decided at the start."""

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
    """Yield the decision of each request in the order of the spec, which was checked against the catalog. `held`: what it begins with.

    What the job may ask for while it runs is decided as if it asked then, holding all that comes before it.
    """
    held = held or HeldAccess()
    for number, access in enumerate(job.spec.access, start=1):
        at = phase if access.at == "start" else "runtime"
        context = AccessContext(at, access.ttl, access.reason, clock, held, break_glass)
        decision = rules.decide(job, access, context)
        yield DryRunStep(number, access, context, decision)
        if decision.outcome != "denied":
            held = rules.with_issued(held, access.resource, access.action)


def outcome_text(outcome: str, tier: int) -> str:
    """Return an outcome as people write it: `allowed`, `tier 2`, `denied`."""
    return f"tier {tier}" if outcome == "needs_approval" else outcome
