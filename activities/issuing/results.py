"""What comes of asking a session for access: a credential under a grant, people who must answer first, or why there is none. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.dependencies import Deps

ACCESS_CLOSED = "the job's access has been closed"


class NotIssued(GiveUp):
    """A request was not issued; the message says which rule, signature or server stood against it."""


class NotPermitted(NotIssued):
    """Policy, or the lack of valid approvals, stands against it."""


class AccessClosed(GiveUp):
    """The job's claim is closed: nothing is issued any more."""


class AccessDenied(NotPermitted):
    """What a running job asked for: policy says no, or people did."""

    def __init__(self, why: str, *, request: str, outcome: str, policies: tuple[str, ...] = ()) -> None:
        self.request = request
        self.outcome = outcome
        self.policies = policies
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A request of a running job that people must answer first."""

    request: str
    tier: int


@dataclass(frozen=True, slots=True)
class ToolAccess:
    """Access through tools that was granted: nothing is issued before a tool is called."""

    request: str
    access: Access
    """As granted: its tools within what its approvers left of them."""


@dataclass(frozen=True)
class IssuedCredential:
    """One credential as it was issued, with what the job is to be given. Cannot print its secrets."""

    access: Access
    credential: CredentialHandle
    fields: Mapping[str, Secret]
    ends: float
    """When the grant is over, in ticks."""
    lease_seconds: int | None
    """How long the lease lives before it must be renewed; None where there is none, or nothing to renew."""

    def seconds_left(self, *, now: datetime, ticks: float) -> float:
        """Return the seconds that the grant still has, by whichever clock says less: one that was set back must not prolong it."""
        return min((self.credential.expires_at - now).total_seconds(), self.ends - ticks)


def issued_event(job: str, credential: CredentialHandle) -> Event:
    """Return the event of one credential's issue: enough to revoke it, never the secret."""
    return build_event(
        EventType.CREDENTIAL_ISSUED,
        job,
        at=credential.issued_at,
        about=credential.id,
        credential=credential.id,
        request=credential.request_id,
        resource=credential.resource,
        action=credential.action.value,
        lease_id=credential.lease_id,
        accessor=credential.accessor,
        issued_at=credential.issued_at.isoformat(),
        expires_at=credential.expires_at.isoformat(),
        revocable=credential.revocable.value,
        certificate=credential.certificate,
    )


@contextmanager
def record_refusal(deps: Deps, job: str, request: str, nth: int) -> Iterator[None]:
    """Record a refusal: a decision to issue that nothing follows would have to be taken for a credential that nobody learned of."""
    try:
        yield
    except (NotIssued, AccessClosed) as error:
        about = request if nth == 1 else f"{request}/{nth}"
        deps.store.ledger.append(
            [build_event(EventType.CREDENTIAL_REFUSED, job, at=deps.now(), about=about, request=request, why=str(error))]
        )
        raise
