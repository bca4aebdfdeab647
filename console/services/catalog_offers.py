"""The actions that the catalog offers on a resource, and how current policy decides on a plain request for each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from justenough.adapters.configuration.folder import ConfigSet
from justenough.domain.catalog.models import ActionDef
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import Clock
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
    rules, launchers, resource = current.rules, frozenset(current.tiers.roles.launch), current.catalog.resources[name]
    return [
        OfferedAction(
            action=action,
            definition=definition,
            decision=rules.decide(*rules.plain_request(name, action, launchers, Clock.at(now))),
            depends=current.policies.relevant_attributes(name, resource, action),
            use=uses.get(AccessKey(name, action.value)) if uses is not None else None,
            reviewer=resource.reviewer(action),
            review_is_over=bool(definition.review.by and definition.review.by < now.date()),
        )
        for action, definition in sorted(resource.actions.items(), key=lambda item: item[0].rank)
    ]
