"""The states of jobs, requests, credentials and revocations; actions, sensitivities. No I/O, no clock."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Action(StrEnum):
    """What a job does with a resource. Each action is a separate credential; none includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Its rank by privilege, lowest first. Approvers may allow an action of a lower rank than requested."""
        return tuple(Action).index(self)


class Sensitivity(IntEnum):
    """The harm that a leak would do: a name in the catalog, a number in policies."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3


class Revocable(StrEnum):
    """Whether, and when, a credential can be revoked. Approvers see it."""

    NOW = "now"
    ON_EXPIRY = "on_expiry"
    NEVER = "never"


class JobState(StrEnum):
    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    REVOKING = "revoking"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    KILLED = "killed"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether the job is over."""
        return self not in {JobState.PENDING, JobState.AWAITING_APPROVAL, JobState.RUNNING, JobState.REVOKING}


class RequestState(StrEnum):
    PENDING = "pending"
    ALLOWED = "allowed"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"

    @property
    def granted(self) -> bool:
        """Whether a credential may be issued under it."""
        return self in {RequestState.ALLOWED, RequestState.APPROVED}


class CredentialState(StrEnum):
    ISSUED = "issued"
    REVOKING = "revoking"
    REVOKED = "revoked"
    CONFIRMED = "confirmed"
    OVERDUE = "overdue"
    EXPIRED = "expired"

    @property
    def is_dead(self) -> bool:
        """Whether it can no longer be used: its end was verified, or its ttl has passed."""
        return self in {CredentialState.CONFIRMED, CredentialState.EXPIRED}


class RevocationState(StrEnum):
    NONE = "none"
    PENDING = "pending"
    CONFIRMED = "confirmed"
    OVERDUE = "overdue"
