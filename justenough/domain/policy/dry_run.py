"""What policy says of a spec before anything is asked for: each request as if the earlier ones had been issued. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from justenough.domain.catalog.loader import Catalog, Resource
from justenough.domain.jobs.credentials import Decision, Held
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import AccessContext, Clock, JobFacts, Phase
from justenough.domain.policy.engine import TOP, PolicySet
from justenough.domain.policy.tier_result import Weighed


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides: the policies, the catalog that they are asked about, and the highest tier that has approvers."""

    policies: PolicySet
    catalog: Catalog
    top: int = TOP

    def resource(self, access: Access) -> Resource:
        """Return what an access is to; the spec was checked against the catalog."""
        return self.catalog.resources[access.resource]

    def weighed(self, job: JobFacts, access: Access, context: AccessContext) -> Weighed:
        """Return which policies hold for an access in these circumstances."""
        return self.policies.weigh(job, access.resource, self.resource(access), access.action, context=context)

    def decided(self, job: JobFacts, access: Access, context: AccessContext) -> Decision:
        """Return what policy says of an access in these circumstances."""
        return self.policies.decided(self.weighed(job, access, context), top=self.top)

    def after(self, held: Held, resource: str, action: Action) -> Held:
        """Return what is held once one more was issued."""
        return held.issued(resource, action, self.catalog.resources[resource].sensitivity)


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a spec, as it is decided at the start."""

    number: int
    access: Access
    context: AccessContext
    decision: Decision


def rehearsed(
    rules: Rules, job: JobFacts, *, clock: Clock, phase: Phase = "start", break_glass: bool = False, held: Held | None = None
) -> Iterator[Step]:
    """Yield the decision of each request in the order of the spec, which was checked against the catalog. `held`: what it begins with.

    What the job may ask for while it runs is decided as if it asked then, holding all that comes before it.
    """
    held = held or Held()
    for number, access in enumerate(job.spec.access, start=1):
        at = phase if access.at == "start" else "runtime"
        context = AccessContext(at, access.ttl, access.reason, clock, held, break_glass)
        decision = rules.decided(job, access, context)
        yield Step(number, access, context, decision)
        if decision.outcome != "denied":
            held = rules.after(held, access.resource, access.action)


def outcome_text(outcome: str, tier: int) -> str:
    """Return an outcome as people write it: `allowed`, `tier 2`, `denied`."""
    return f"tier {tier}" if outcome == "needs_approval" else outcome
