"""One person: what they launched, decided and delegated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from anyio import to_thread

from console.auth.authorization import Caller
from console.services.console import Console
from console.services.visibility import visible_answered_requests
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.readmodel.views import ApprovalView, DelegationView, JobSummary, RequestView

MAX_JOBS = 25
MAX_DECISIONS = 25


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """The record of a person: their jobs, decisions and delegations."""

    name: str
    groups: frozenset[str] | None
    """The person's current groups in Vault; None if Vault does not know the person, or does not answer."""
    tier: int
    """The highest tier at which they may decide; 0 for none."""
    launched: Sequence[JobSummary]
    decisions: Sequence[tuple[RequestView, ApprovalView]]
    """Newest first."""
    delegations: Sequence[DelegationView]
    """Delegations in force, by them or to them."""

    def count(self, decision: str) -> int:
        return sum(approval.decision == decision for _, approval in self.decisions)


async def person_record(console: Console, caller: Caller, name: str) -> PersonRecord:
    """Return a person's record. Raises NotFound if there is none, or if the caller may read neither everything nor this record."""
    is_self = name == caller.person.name
    if not is_self and not caller.can_read_all:
        raise NotFound(f"there is no person {name}")
    ids = await to_thread.run_sync(console.deps.store.search.ids_of_person, name)
    if is_self:
        # A person who may read only their own record must not see that of somebody else who has, or had, the same login name.
        ids = tuple(dict.fromkeys((caller.person.id, *(ids if caller.can_read_all else ()))))
    if not ids:
        raise NotFound(f"there is no person {name}")
    groups: frozenset[str] | None = None
    with suppress(RetryLater):
        people = [await console.token_verifier.person(identity, allow_last_known=True) for identity in ids]
        groups = next((person.groups for person in people if person is not None), None)
    return await to_thread.run_sync(_read_record, console, caller, name, ids, groups)


def _read_record(console: Console, caller: Caller, name: str, ids: Sequence[str], groups: frozenset[str] | None) -> PersonRecord:
    store = console.deps.store
    launched = store.jobs.list(requester=name, requester_id=caller.requester_filter, limit=MAX_JOBS).items
    found = (visible_answered_requests(store, console.job_owners, caller, identity, limit=MAX_DECISIONS) for identity in ids)
    answered = {request.id: request for requests in found for request in requests}
    decisions = [(request, approval) for request in answered.values() for approval in request.approvals if approval.approver_id in ids]
    delegations = {one.id: one for identity in ids for one in store.delegations.current_of(identity, now=console.deps.now())}
    return PersonRecord(
        name=name,
        groups=groups,
        tier=caller.tiers.tier_of(groups) if groups else 0,
        launched=launched,
        decisions=sorted(decisions, key=lambda decision: decision[1].at, reverse=True)[:MAX_DECISIONS],
        delegations=list(delegations.values()),
    )
