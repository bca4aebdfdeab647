"""The actions that the catalog offers on a resource, and how current policy decides on a plain request for each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.catalog.models import ActionDef
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, JobSpec, RunSpec
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import AccessContext, Clock, JobFacts
from justenough.domain.policy.dry_run import PolicyEvaluator
from justenough.domain.rightsizing.usage import AccessKey, ActionUse


@dataclass(frozen=True, slots=True)
class OfferedAction:
    """An action of the catalog, with current policy's decision on a plain request for it."""

    action: Action
    definition: ActionDef
    decision: Decision
    depends: frozenset[tuple[str, str]]
    """The attributes that the deciding policies read."""
    use: ActionUse | None
    reviewer: str
    review_is_over: bool


def offered_actions(
    current: ConfigSet, name: str, *, now: datetime, uses: Mapping[AccessKey, ActionUse] | None = None
) -> Sequence[OfferedAction]:
    """Return the actions of a resource of the catalog, from the narrowest to the broadest."""
    rules, clock, order = PolicyEvaluator(current.policies, current.catalog, current.tiers.top), Clock.at(now), list(Action)
    resource = current.catalog.resources[name]
    # A plain request: at a job's start, in the resource's environment, by a launcher.
    spec = JobSpec(name="job", task="-", environment=resource.environment, run=RunSpec(command=("true",)))
    job = JobFacts("plain", spec, "", frozenset(current.tiers.roles.launch))

    def decide(action: Action) -> Decision:
        longest = resource.actions[action].max_ttl
        access = Access(resource=name, action=action, ttl=longest, reason="-")
        return rules.decide(job, access, AccessContext("start", longest, "-", clock))

    return [
        OfferedAction(
            action=action,
            definition=definition,
            decision=decide(action),
            depends=current.policies.relevant_attributes(name, resource, action),
            use=uses.get(AccessKey(name, action.value)) if uses is not None else None,
            reviewer=resource.reviewer(action),
            review_is_over=bool(definition.review.by and definition.review.by < now.date()),
        )
        for action, definition in sorted(resource.actions.items(), key=lambda item: order.index(item[0]))
    ]
