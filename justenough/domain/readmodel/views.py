"""The read model's shapes, as API and CLI show them. docs/reference/rest-api.md lists their fields. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import Field

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.jobs.tool_bounds import Bounds

T = TypeVar("T")


class Page(Message, Generic[T]):
    """One page of a list; `next` is the cursor of the following one."""

    items: tuple[T, ...]
    next: str | None = None


class ApprovalView(Message):
    approver: str
    """Login name."""
    approver_id: str
    tier: int
    decision: str
    reason: str
    ttl: int
    """Seconds that they allow, at most what was requested."""
    action: str | None = None
    """What they allow, at most what was requested; None in what was recorded before anyone could allow less."""
    tools: Mapping[str, Bounds] | None = None
    """What they bind tools to; None where they bind nothing beyond what was requested."""
    on_behalf_of: str | None = None
    """Login name of who had named the approver their delegate."""
    at: datetime
    withdrawn_at: datetime | None = None
    """When they took it back."""


class ClaimView(Message):
    """Somebody said that they look at it. Others may answer all the same."""

    by: str
    by_id: str
    until: datetime


class ReviewView(Message):
    """A tier that somebody passed alone by breaking glass; open until somebody of those who were passed over says what they think of it."""

    request_id: str
    job_id: str
    job_name: str = ""
    resource: str = ""
    action: str = ""
    digest: str = ""
    """The request's."""
    person: str
    """Login name of who broke glass."""
    person_id: str
    tiers: tuple[int, ...]
    groups: tuple[str, ...]
    reason: str
    opened_at: datetime
    open: bool
    verdict: str | None = None
    """justified | unjustified"""
    reviewer: str | None = None
    review_reason: str | None = None
    reviewed_at: datetime | None = None


class DelegationView(Message):
    """Who answers for whom until when."""

    id: str
    person: str
    person_id: str
    delegate: str
    delegate_id: str
    reason: str
    made_at: datetime
    until: datetime
    ended_at: datetime | None = None


class Ancestor(Message):
    """A job that launched another, or launched one that did, and what it has touched until now."""

    job: str
    name: str
    task: str
    requester: str
    """Login name."""
    touched: tuple[str, ...] = ()
    """Resources that it was issued something for."""
    sensitivity: str = "public"
    """The highest of these."""


class LockView(Message):
    """What waits in Vault until people authorize it there too."""

    accessor: str
    """They authorize by it; it opens nothing."""
    expires_at: datetime


class RequestView(Message):
    id: str
    job_id: str
    resource: str
    title: str
    action: str
    ttl: int
    """Seconds: as requested."""
    granted_ttl: int | None = None
    """Seconds: as approved, where someone approved less."""
    granted_action: str | None = None
    """As approved, where someone approved less."""
    tools: Mapping[str, Bounds] | None = None
    """As requested: the tools that it is had through, each within its bounds; None for a credential, or for one call."""
    granted_tools: Mapping[str, Bounds] | None = None
    """As approved."""
    reason: str
    optional: bool
    sensitivity: str
    revocable: str
    state: RequestState
    tier: int
    """The tier that policy asks for; 0 for none."""
    current_tier: int
    """The tier that answers now."""
    quorum: int = 0
    policies: tuple[str, ...] = ()
    policy_digest: str = ""
    digest: str = ""
    approvals: tuple[ApprovalView, ...] = ()
    created_at: datetime
    expires_at: datetime | None = None
    """Until when the current tier has time."""
    claim: ClaimView | None = None
    review: ReviewView | None = None
    """Where somebody broke glass."""
    call: dict[str, Any] | None = None
    """{tool, arguments}: the one call that it is for, where it is for one."""
    lock: LockView | None = None
    """Of an action that Vault itself also locks."""
    job_name: str = ""
    task: str = ""
    requester: str = ""
    parent: str | None = None
    """The job that launched its job."""
    chain: tuple[Ancestor, ...] = ()
    """Its job's parent, that one's parent and so on; in lists empty."""

    @property
    def counting_approvals(self) -> tuple[ApprovalView, ...]:
        """The approvals that count at the tier that answers now: what was taken back, and what a climb left behind, does not."""
        given = (item for item in self.approvals if item.decision != "deny" and item.withdrawn_at is None)
        return tuple(item for item in given if item.decision == "break_glass" or item.tier >= self.current_tier)


class CredentialView(Message):
    id: str
    job_id: str
    request_id: str
    resource: str
    action: str
    state: CredentialState
    lease_id: str | None
    accessor: str | None
    """None where it may have been issued and nobody learned of it."""
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_why: str | None = None
    """Why it was ended alone, while its job went on."""
    confirmed_at: datetime | None = None
    confirmed_how: str | None = None
    why: str | None = None
    """Why it is not confirmed dead, where that was tried."""
    revocable: str
    certificate: str | None = None
    """Where in Vault its certificate is, whose revocation is looked at."""


class RevocationView(Message):
    state: RevocationState
    confirmed_at: datetime | None = None
    failures: tuple[str, ...] = ()
    since: datetime | None = None
    """When the revoking that is not confirmed yet began."""


class JobSummary(Message):
    """A job's row in a list."""

    id: str
    name: str
    task: str
    environment: str
    requester: str
    """Login name."""
    requester_id: str
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    """Why it ended as it did."""
    parent: str | None = None
    """The job that launched it."""
    revocation: RevocationView


class JobView(JobSummary):
    """A job whole."""

    agent: dict[str, Any] | None = None
    data_scope: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    params: dict[str, str] = Field(default_factory=dict)
    bundle: str | None = None
    order_reason: str = ""
    """Why it was launched."""
    sandbox: str | None = None
    chain: tuple[Ancestor, ...] = ()
    """Its parent, that one's parent and so on."""
    requests: tuple[RequestView, ...] = ()
    credentials: tuple[CredentialView, ...] = ()
    """All that may be alive, and the newest of the others."""
    older_credentials: int = 0
    """How many more it was issued, which are dead."""


class Launched(Message):
    """What became of one job that the configuration launched."""

    id: str
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    """How it ended, in one sentence."""
    order_reason: str = ""
    """What it was launched for."""


class EntryView(Message):
    """One ledger entry."""

    position: int
    """Across all jobs, ascending, gaps allowed."""
    job: str
    seq: int
    """Within the job, from 1, without gaps."""
    id: str
    type: str
    at: datetime
    data: dict[str, Any]
    prev: str
    hash: str


class LogChunk(Message):
    seq: int
    at: datetime
    text: str


class DeliveryView(Message):
    """An event that somebody was to be told of, and that could not be delivered until now."""

    id: str
    subscription: str
    event: str
    """The ledger entry's id."""
    type: str
    job: str
    at: datetime
    """When it happened."""
    state: str
    """pending | dead"""
    attempts: int
    next_at: datetime | None
    last_at: datetime
    why: str
    """Of the last attempt."""
