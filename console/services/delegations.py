"""Delegations: who decides for whom until when. A delegate must be in the approver groups too, so a delegation grants no new rights.

Blocking, for a thread.
"""

from __future__ import annotations

from console.auth.authorization import Caller, answering_groups
from console.services.inputs import SignedBody
from console.services.signed_statements import parse_own_statement, validate_statement
from justenough.domain.approvals.statements import DelegationStatement
from justenough.domain.core.base_model import Message
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType
from justenough.domain.readmodel.views import DelegationView
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import event_of_person


class PersonView(Message):
    """An approver."""

    id: str
    """Vault entity id."""
    name: str
    """Login name."""
    tier: int
    """The highest tier at which they may decide."""


def find_approver(deps: Deps, caller: Caller, name: str) -> PersonView:
    """Return the approver with this login name, on a mount where the caller has a login. Raises NotFound."""
    person = deps.vault.person_named(name, like=caller.person.id, people_mounts=deps.settings.people_mounts)
    tier = caller.tiers.tier_of(person.groups) if person else 0
    if person is None or not tier:
        raise NotFound(f"there is no approver {name}")
    return PersonView(id=person.id, name=person.name, tier=tier)


def create_delegation(deps: Deps, caller: Caller, body: SignedBody) -> DelegationView:
    """Record the caller's signed delegation and return it. The same statement creates only one delegation."""
    statement = parse_own_statement(DelegationStatement, body, caller)
    validate_statement(deps, statement, body, {"delegate": (statement.delegate == caller.person.id, "is yourself")})
    delegate = deps.vault.person(statement.delegate, deps.settings.people_mounts)
    if delegate is None:
        raise InvalidInput("delegation", (Problem("statement.delegate", "is not the id of a person in this installation"),))
    if caller.tiers.tier_of(delegate.groups) < caller.tier:
        groups = ", ".join(sorted(answering_groups(caller.tier, caller.tiers)))
        message = f"{delegate.name} may not decide at your tier {caller.tier}; a delegate must be in one of the groups {groups}"
        raise InvalidInput("delegation", (Problem("statement.delegate", message),))
    name = f"d-{digest_of(body.statement).removeprefix('sha256:')[:24]}"
    event = event_of_person(
        caller.person,
        EventType.DELEGATION_MADE,
        UNATTRIBUTED_CHAIN,
        at=deps.now(),
        about=name,
        delegation=name,
        delegate=delegate.id,
        delegate_name=delegate.name,
        until=to_rfc3339(statement.expires_at),
        reason=statement.reason,
        signed=body.to_signed().model_dump(mode="json"),
    )
    deps.store.ledger.append([event])
    return _delegation_view(deps, name)


def end_delegation(deps: Deps, caller: Caller, delegation: str) -> DelegationView:
    """End one of the caller's own delegations and return it. Raises NotFound, Forbidden, Conflict if it was already ended."""
    view = _delegation_view(deps, delegation)
    if view.person_id != caller.person.id:
        raise Forbidden("only the person who made a delegation can end it")
    if view.ended_at:
        raise Conflict("this delegation has already been ended")
    kind, now = EventType.DELEGATION_ENDED, deps.now()
    deps.store.ledger.append([event_of_person(caller.person, kind, UNATTRIBUTED_CHAIN, at=now, about=delegation, delegation=delegation)])
    return _delegation_view(deps, delegation)


def _delegation_view(deps: Deps, name: str) -> DelegationView:
    view = deps.store.delegations.get(name)
    if view is None:
        raise NotFound(f"there is no delegation {name}")
    return view
