"""The read model's views, as the API and the CLI show them. docs/reference/rest-api.md lists their fields. No I/O.

Over 400 lines: every view is here, because they contain each other and one document lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypedDict, TypeVar

from pydantic import Field

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import (
    BEYOND_ORDER,
    CredentialState,
    JobState,
    ReasonSource,
    RequestState,
    Revocable,
    RevocationState,
    reason_source_text,
)
from justenough.domain.jobs.tool_bounds import Bounds
from justenough.domain.ledger.overdue import is_sweep_late

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
    """The approved ttl in seconds, at most the requested ttl."""
    action: str | None = None
    """The approved action, at most the requested one; None in old records, from before approvals could be narrowed."""
    tools: Mapping[str, Bounds] | None = None
    """The approved bounds on tools; None if the approver added none to the requested ones."""
    on_behalf_of: str | None = None
    """Login name of the person who named the approver their delegate."""
    on_behalf_of_id: str | None = None
    at: datetime
    withdrawn_at: datetime | None = None
    lapsed: str | None = None
    """Why it no longer counted when the request's answers were last verified again, for example because the approver has left the group."""


class ClaimView(Message):
    """A claim: a note by somebody who is reviewing the request. Others can still decide it."""

    by: str
    by_id: str
    until: datetime


class ReviewView(Message):
    """The review of a break-glass approval; open until one of the bypassed approvers completes it."""

    request_id: str
    job_id: str
    job_name: str = ""
    resource: str = ""
    action: str = ""
    digest: str = ""
    """The request's digest."""
    person: str
    """Login name of the person who used break-glass."""
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
    """A person, their delegate, and the time until which the delegate may decide for them."""

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
    """A job that launched this one, directly or through other jobs, and the resources it has touched so far."""

    job: str
    name: str
    task: str
    requester: str
    """Login name."""
    touched: tuple[str, ...] = ()
    """Resources for which the ancestor was issued credentials."""
    sensitivity: str = "public"
    """The highest sensitivity of these."""


class LockView(Message):
    """A control group in Vault whose authorization is pending."""

    accessor: str
    """The accessor by which people authorize the request; it gives no access."""
    expires_at: datetime


class RequestView(Message):
    id: str
    job_id: str
    resource: str
    title: str
    action: str
    ttl: int
    """Requested, in seconds."""
    granted_ttl: int | None = None
    """The approved ttl in seconds, at most the requested one; None if no person has approved it."""
    granted_action: str | None = None
    """The approved action, at most the requested one."""
    tools: Mapping[str, Bounds] | None = None
    """The requested tools, each with its bounds; None if the request is for a credential or for one call."""
    granted_tools: Mapping[str, Bounds] | None = None
    """The approved tools."""
    reason: str
    reason_by: ReasonSource | None = None
    """The source of the reason: the order that a person signed, or the running program. None if that was not recorded."""
    signed_reason: str | None = None
    """The order's reason for this access; None if the order does not list it."""
    optional: bool
    sensitivity: str
    revocable: str
    state: RequestState
    tier: int
    """The tier that policy requires; 0 if none."""
    current_tier: int
    """The tier whose approvers can decide now."""
    quorum: int = 0
    policies: tuple[str, ...] = ()
    policy_digest: str = ""
    policy_reasons: Mapping[str, str] = {}
    """By id, the comment above each policy that decided; empty in lists, and if the policies have changed since the decision."""
    digest: str = ""
    approvals: tuple[ApprovalView, ...] = ()
    created_at: datetime
    expires_at: datetime | None = None
    """The deadline of the current tier."""
    job_times_out_at: datetime | None = None
    """If the request is pending: when its running job times out; it cannot be decided after that. None before the job runs."""
    claim: ClaimView | None = None
    review: ReviewView | None = None
    """Set if somebody used break-glass."""
    call: dict[str, Any] | None = None
    """{tool, arguments}, if the request is for one tool call."""
    lock: LockView | None = None
    """Set if the action has a control group in Vault."""
    job_name: str = ""
    task: str = ""
    requester: str = ""
    parent: str | None = None
    """The parent of its job."""
    chain: tuple[Ancestor, ...] = ()
    """The ancestors of its job, the parent first; empty in lists."""
    approvers: tuple[str, ...] = ()
    """If it is pending: the groups whose members can decide at the current tier; empty in lists."""
    escalates_to: int | None = None
    """If it is pending: the tier to which it escalates at `expires_at`; None if it expires then, and in lists."""

    @property
    def ends_with_job(self) -> bool:
        """Whether its job times out before the current tier's deadline."""
        return self.job_times_out_at is not None and (self.expires_at is None or self.job_times_out_at < self.expires_at)

    @property
    def decide_by(self) -> datetime | None:
        """The time until which it can be decided at the current tier; None if there is no deadline."""
        return self.job_times_out_at if self.ends_with_job else self.expires_at

    @property
    def is_beyond_order(self) -> bool:
        """Whether the signed order does not name the access, so that policy alone could not allow it."""
        return BEYOND_ORDER in self.policies

    @property
    def reason_source(self) -> str:
        return reason_source_text(self.reason_by, has_parent=self.parent is not None)

    @property
    def spec_reason_source(self) -> str:
        return reason_source_text(ReasonSource.ORDER, has_parent=self.parent is not None)

    @property
    def standing_approvals(self) -> tuple[ApprovalView, ...]:
        """The approvals that are neither withdrawn nor lost by an escalation. One that has lapsed may count again."""
        valid = (item for item in self.approvals if item.decision != "deny" and item.withdrawn_at is None)
        return tuple(item for item in valid if item.decision == "break_glass" or item.tier >= self.current_tier)

    @property
    def counting_approvals(self) -> tuple[ApprovalView, ...]:
        """The approvals that count at the current tier: not withdrawn, not lost by an escalation, and not lapsed."""
        return tuple(item for item in self.standing_approvals if item.lapsed is None)

    @property
    def lasting_answers(self) -> tuple[ApprovalView, ...]:
        """The answers after which their people cannot answer again: withdrawn ones, and those that no escalation has discarded."""
        return tuple(item for item in self.approvals if item.withdrawn_at or item.tier >= self.current_tier)

    @property
    def withdrawers(self) -> frozenset[str]:
        """Entity ids of the people who withdrew an answer."""
        return frozenset(item.approver_id for item in self.approvals if item.withdrawn_at)

    @property
    def break_glass(self) -> ApprovalView | None:
        """The break-glass by which it was approved; None if it is not approved, or was approved by its tier."""
        counting = self.counting_approvals if self.state is RequestState.APPROVED else ()
        return next((item for item in counting if item.decision == "break_glass"), None)

    @property
    def deciding_answers(self) -> tuple[ApprovalView, ...]:
        """The approvals by which it was approved, or the denial; empty if people have not decided it."""
        match self.state:
            case RequestState.APPROVED:
                return self.counting_approvals
            case RequestState.DENIED:
                return tuple(item for item in self.approvals if item.decision == "deny")
            case _:
                return ()

    @property
    def decided_at(self) -> datetime | None:
        """When people decided it, or it expired without a decision; None if it is pending, or if policy decided it."""
        match self.state:
            case RequestState.APPROVED | RequestState.DENIED:
                moments = [item.at for item in self.deciding_answers]
            case RequestState.WITHDRAWN:
                moments = [item.withdrawn_at for item in self.approvals if item.withdrawn_at]
            case RequestState.EXPIRED:
                return self.expires_at
            case _:
                return None
        return max(moments, default=None)


class CredentialView(Message):
    id: str
    job_id: str
    request_id: str
    resource: str
    action: str
    state: CredentialState
    lease_id: str | None
    accessor: str | None
    """None if it may have been issued but no response arrived."""
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_why: str | None = None
    """Why it was revoked while its job continued."""
    confirmed_at: datetime | None = None
    confirmed_how: str | None = None
    why: str | None = None
    """Why its revocation could not be confirmed, if an attempt failed."""
    revocable: str
    certificate: str | None = None
    """The Vault path of its certificate, whose revocation is checked."""
    held_by_job: bool = True
    """Whether the job itself got it; False if only the worker used it, for a model or a tool call."""
    user: str | None = None
    """The name of its user in its target; None if the action has no target or Vault's answer was lost."""
    target_digest: str | None = None
    """The digest of the target in which its user was found alive; None if its user was never found."""
    search_digest: str | None = None
    """The digest under which a search by job id was known to find such users when it was issued."""

    @property
    def is_endless(self) -> bool:
        """Whether it stays valid after its job until its owner changes it."""
        return self.state is CredentialState.RESIDUAL and self.revocable == Revocable.NEVER


class ConfigState(StrEnum):
    """Which configuration a worker uses."""

    VALID = "valid"
    LAST_GOOD = "last_good"
    """The newest configuration is broken; an earlier one stays in force."""
    NONE = "none"
    """The worker has read no valid configuration, and takes no jobs."""


class SweepView(Message):
    """The installation's last sweep, as recorded by workers."""

    active_at: datetime
    """When a worker was last known to be sweeping."""
    steady_since: datetime
    """Since when workers have swept without a long gap, so the store has accepted writes since then."""
    ended_at: datetime | None
    """When the last completed sweep ended."""
    by_clock: bool
    """Whether a worker began the last sweep by its own clock, because no sweep had come through Temporal."""


class WorkerView(Message):
    """A worker's process, as in its last report."""

    name: str
    """Of its host and process."""
    version: str
    """Of its code."""
    config_digest: str | None
    """`sha256:…` of the configuration that it has in force; None if it has none, and takes no jobs."""
    config_alarm: str | None
    """Why the newest configuration is not in force in this worker; None if it is."""
    last_seen: datetime

    @property
    def config_state(self) -> ConfigState:
        if self.config_digest is None:
            return ConfigState.NONE
        return ConfigState.VALID if self.config_alarm is None else ConfigState.LAST_GOOD


class TargetCheck(Message):
    """Whether the users of jobs could be found and ended in a target, in the last sweep."""

    name: str
    """host:port/dbname"""
    failure: str | None
    """Why users cannot be found or ended there, or which users could not be; None if all is well."""
    since: datetime
    """When it was first found in its present state."""
    checked_at: datetime
    actions: tuple[str, ...] | None = None
    """The actions of the catalog, as `resource:action`, whose users are there; None if an earlier version recorded this.

    Consoles cannot tell from their catalog, because only workers have the settings that its addresses may contain.
    """

    def is_failing(self, *, now: datetime) -> bool:
        """Whether it failed a check that is recent enough to count."""
        return self.failure is not None and not is_sweep_late(self.checked_at, since=self.checked_at, now=now)


class RevocationView(Message):
    state: RevocationState
    confirmed_at: datetime | None = None
    failures: tuple[str, ...] = ()
    since: datetime | None = None
    """When the revocation started, if it is not confirmed yet."""
    residual_until: datetime | None = None
    """If the state is residual: the time until which credentials that cannot be revoked are valid; None if that depends on their owners."""


class JobFilters(TypedDict, total=False):
    """The filters of a list of jobs; None for any."""

    state: JobState | None
    environment: str | None
    requester_id: str | None
    requester: str | None
    """Login name."""
    name: str | None
    revocation: RevocationState | None
    parent: str | None
    first: str | None
    """The lowest id."""
    beginning: str | None
    """How the id begins."""


class CredentialFilters(TypedDict, total=False):
    """The filters of a list of credentials; None for any."""

    live: bool
    """Only credentials that are not confirmed dead."""
    job: str | None
    resource: str | None
    action: str | None
    state: CredentialState | None
    beginning: str | None
    """How the id begins."""


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
    """Why it ended in this state."""
    parent: str | None = None
    """Its parent: the job that launched it."""
    agent: dict[str, Any] | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    revocation: RevocationView


class JobView(JobSummary):
    """A job with all details."""

    data_scope: dict[str, str] = Field(default_factory=dict)
    params: dict[str, str] = Field(default_factory=dict)
    bundle: str | None = None
    order_reason: str = ""
    sandbox: str | None = None
    chain: tuple[Ancestor, ...] = ()
    """Its ancestors, the parent first."""
    requests: tuple[RequestView, ...] = ()
    credentials: tuple[CredentialView, ...] = ()
    """All credentials that may be active, and the newest of the others."""
    older_credentials: int = 0
    """The number of further credentials that were issued to the job, none of them active."""


class Launched(Message):
    """The outcome of a job that a trigger or a schedule launched."""

    id: str
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    """Why it ended in this state."""
    order_reason: str = ""


class EntryView(Message):
    """One ledger entry."""

    position: int
    """Its place among the entries of all jobs: ascending, possibly with gaps."""
    job: str
    seq: int
    """Its place among the entries of its job: from 1, without gaps."""
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
    """An event that could not be delivered to a subscription yet."""

    id: str
    subscription: str
    event: str
    """The ledger entry's id."""
    type: str
    job: str
    at: datetime
    """When the event happened."""
    state: str
    """pending | dead"""
    attempts: int
    next_at: datetime | None
    last_at: datetime
    why: str
    """Why the last attempt failed."""
