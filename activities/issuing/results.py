"""Results of asking a session for access: a credential, access through tools, a request that waits for approval, or an error. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from activities.revocation.proof import LOGIN_MARGIN
from justenough.adapters.vault import IssuedSecret, pki
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle, Decision
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState, Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.views import RequestView

ACCESS_CLOSED = "the job's access has been closed"
STOP_RECORDED = "somebody asked the job to end, so nothing more is issued to it"


class IssueRefused(GiveUp):
    """A credential was not issued; the message names the rule, signature or server that refused it."""

    REASON_NAME: Final = "NotIssued"
    """This error's name in a job's reason. Ledgers and reports contain it: never change it."""


class NotPermitted(IssueRefused):
    """Policy denies the request, or the request lacks valid approvals."""


class AccessRefused(NotPermitted):
    """A running job's request that can never be granted, or not now. It gets no id and no decision, so the ledger records it as `access.refused`."""


class OrderNotValid(NotPermitted):
    """The job's order is no longer valid: its launcher has lost a right, or the configuration no longer makes such an order."""


class AccessClosed(GiveUp):
    """The job's claim is closed, or somebody asked the job to end: nothing more is issued."""


class AccessDenied(NotPermitted):
    """A running job's request that policy or people denied."""

    def __init__(self, why: str, *, request: str, outcome: str, policies: tuple[str, ...] = ()) -> None:
        self.request = request
        self.outcome = outcome
        self.policies = policies
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class IssueBasis:
    """The decision and the approvals that a credential was issued on."""

    decision: Decision
    digest: str
    at: datetime
    requested: Access
    """What the job requested; its approvers may have granted less."""
    ladder: Ladder | None = None
    """With the answers that counted; None if no approval was needed."""

    @property
    def tier(self) -> int:
        """The tier whose approvers agreed; 0 if no approval was needed."""
        return self.ladder.current if self.ladder else 0

    @property
    def broke_glass(self) -> bool:
        """Whether somebody passed the tier alone by breaking glass."""
        return self.ladder is not None and self.ladder.broke_glass


@dataclass(frozen=True, slots=True)
class EndReason:
    """The reason why a credential must end before its job does, and the events to record with its end."""

    why: str
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request of a running job that people must answer, and its current state."""

    request_id: str
    tier: int
    state: RequestState = RequestState.PENDING
    respond_by: datetime | None = None

    @classmethod
    def of(cls, view: RequestView) -> Self:
        """Return the state of a recorded request."""
        return cls(view.id, view.current_tier, view.state, view.expires_at)


@dataclass(frozen=True, slots=True)
class ToolAccess:
    """Granted access through tools. A credential is issued only when a tool is called."""

    request: str
    access: Access
    """The granted access: its tools, within the bounds that its approvers set."""


@dataclass(frozen=True)
class IssuedCredential:
    """One credential as it was issued, with the secret fields for the job. Cannot print its secrets."""

    access: Access
    credential: CredentialHandle
    fields: Mapping[str, Secret]
    ends: float
    """When the grant ends, in ticks."""
    lease_seconds: int | None
    """Seconds that the lease lives before it must be renewed; None if there is nothing to renew."""
    connect: Mapping[str, Any]
    """How to reach its server, from the catalog by which it was issued."""

    @property
    def began(self) -> float:
        """When it was issued, in ticks."""
        return self.ends - self.access.ttl

    def seconds_left(self, *, now: datetime, ticks: float) -> float:
        """Return the grant's remaining seconds."""
        return seconds_until(self.credential.expires_at, self.ends, now=now, ticks=ticks)


def seconds_until(end: datetime, end_ticks: float, *, now: datetime, ticks: float) -> float:
    """Return the seconds until an end, by the clock that shows less time left: the time of day may be set back, and ticks stop while the machine
    is suspended.
    """
    return min((end - now).total_seconds(), end_ticks - ticks)


def end_of_issued(
    action: ActionDef, issued: IssuedSecret, *, lease_s: int | None, grant_s: int, at: datetime, is_seen: bool = True
) -> datetime:
    """Return when an issued credential ends: with its certificate or its grant.

    A credential that cannot be revoked works until its lease ends, if that is later, and for LOGIN_MARGIN after that. One that its target has not
    shown yet (not `is_seen`) may work until its lease ends, because nobody knows whether its revocation ends it. `lease_s`, `grant_s`: the
    seconds of the lease (None without a lease) and of the grant, from `at`.
    """
    only_expires = action.revocable is Revocable.ON_EXPIRY
    seconds = max(grant_s, lease_s or 0) if only_expires or not is_seen else grant_s
    margin = LOGIN_MARGIN if only_expires and lease_s else timedelta()
    return pki.ends_at(action, issued) or at + timedelta(seconds=seconds) + margin


def user_of_issued(action: ActionDef, issued: IssuedSecret) -> str | None:
    """Return the name of a credential's user in its target; None if it has none, or will be refused because it has no lease."""
    # Without a lease, the user was not made for it and does not end with it, so finding the user says nothing about the job's access.
    if not action.target or (issued.lease_id is None and action.revocable is Revocable.NOW):
        return None
    return issued.fields["username"].reveal() if "username" in issued.fields else None


def issued_event(job: str, credential: CredentialHandle) -> Event:
    """Return the event that records an issued credential: enough to revoke it, never the secret."""
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
        held_by_job=credential.held_by_job,
        user=credential.user,
        target_digest=credential.target_digest,
        search_digest=credential.search_digest,
    )


def renewed_event(job: str, credential: CredentialHandle, *, at: datetime) -> Event:
    """Return the event of a lease that was renewed, or shortened to its grant. It contains the new end of the credential."""
    about, ends = f"{credential.id}/{at.timestamp():.0f}", credential.expires_at.isoformat()
    return build_event(EventType.CREDENTIAL_RENEWED, job, at=at, about=about, credential=credential.id, expires_at=ends)


def refused_event(job: str, request: str, nth: int, why: str, *, at: datetime) -> Event:
    """Return the event of the `nth` attempt to issue for a request, if it was refused.

    Without it, the recorded decision would look as if a credential had been issued without being recorded.
    """
    about = request if nth == 1 else f"{request}/{nth}"
    return build_event(EventType.CREDENTIAL_REFUSED, job, at=at, about=about, request=request, why=why)
