"""What the store knows of a job that is to be revoked, and what Vault may also have issued."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from activities.revocation.in_doubt import UnrecordedIssues, find_unconfirmed_issues, read_unrecorded_issues
from activities.revocation.proof import accesses_of, credential_of
from activities.revocation.steps import FailureCollector
from justenough.adapters.store import StoredWrappingToken
from justenough.adapters.targets.inspector import RequestedActions
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.services.dependencies import Deps

LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class JobMemory:
    """The store's knowledge of a job: its credentials, and `accesses`, the targets in which it may have users or a space (None: any)."""

    credentials: tuple[CredentialHandle, ...] = ()
    unrecorded: UnrecordedIssues | None = None
    """What Vault may also have issued; None if the store was not asked, or did not answer."""
    doubts: tuple[CredentialHandle, ...] = ()
    """The credentials among them that nobody has recorded yet; see `with_doubts`."""
    unknown: tuple[str, ...] = ()
    """Why it is unknown now whether there are more doubts."""
    accesses: RequestedActions | None = None
    closed: bool = False
    """Whether the claim is closed: no session can issue any more."""
    contested: bool = False
    """Whether it was closed before: then another revocation may have recorded doubts, which a session's own exit does not know."""
    unclaimed: bool = False
    """Whether no session ever had the right to issue: then nothing can be in flight."""
    locks: tuple[StoredWrappingToken, ...] = ()
    """Wrapping tokens that waited for people's authorization and must be revoked."""
    proven_at: datetime | None = None
    """The time of the newest proof, by the clock of its worker; LONG_AGO if there is none, None if the store was not read."""


def close_claim_and_read(
    deps: Deps, job: str, known: tuple[CredentialHandle, ...] | None, spaces: RequestedActions, *, settled: bool, now: datetime
) -> JobMemory:
    """Close the claim, then return the store's knowledge of the job."""
    before = deps.store.claims.get(job)
    contested = before is not None and not before.open
    # Close the claim before the token role is deleted: a session writes the role, reads its claim, and only then requests a token.
    locks = deps.store.claims.end_issuing(job, now)
    if settled and known is not None:
        accesses = spaces | {(item.resource, item.action.value) for item in known}
        return JobMemory(known, accesses=accesses, closed=True, contested=contested, locks=locks)
    claim, view = deps.store.claims.get(job), deps.store.jobs.get(job)
    unclaimed = claim is not None and claim.owner is None
    if view is None:
        return JobMemory(known or (), closed=True, unclaimed=unclaimed, locks=locks)
    # If this fails, what is known must be revoked anyway.
    asked = FailureCollector()
    unrecorded = asked.attempt("issues in flight", lambda: read_unrecorded_issues(deps, view), otherwise=None)
    recorded = {item.id: credential_of(item) for item in view.credentials if not item.state.is_settled}
    return JobMemory(
        tuple((recorded | {item.id: item for item in known or ()}).values()),
        unrecorded,
        unknown=tuple(asked.failures),
        accesses=accesses_of(view),
        closed=True,
        unclaimed=unclaimed,
        locks=locks,
        proven_at=view.revocation.confirmed_at or LONG_AGO,
    )


def with_doubts(deps: Deps, memory: JobMemory) -> JobMemory:
    """Add the credentials that Vault may have issued and nobody recorded, or why these cannot be known now."""
    if memory.unrecorded is None:
        return memory
    asked = FailureCollector()
    find = partial(find_unconfirmed_issues, deps, memory.unrecorded)
    found: tuple[CredentialHandle, ...] = asked.attempt("issues in flight", find, otherwise=())
    doubts = tuple(item for item in found if item.id not in {known.id for known in memory.credentials})
    return replace(memory, credentials=(*doubts, *memory.credentials), doubts=doubts, unknown=(*memory.unknown, *asked.failures))
