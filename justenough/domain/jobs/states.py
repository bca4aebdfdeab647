"""The states of jobs, requests, credentials and revocations; actions, sensitivities, sources of reasons, `beyond`. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Literal


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


class ReasonSource(StrEnum):
    """Who wrote a request's reason."""

    ORDER = "order"
    """The person who signed the order, in its spec."""
    PROGRAM = "program"
    """The job's program or agent, while it ran. Nobody has verified it."""


def reason_source_text(source: str | None, *, has_parent: bool | None) -> str:
    """Describe who wrote a reason. `source`: a ReasonSource's value; None if it was not recorded.

    `has_parent`: whether another job launched the job; then no person signed that spec, and the parent's program or agent may have written
    it. None: not known.
    """
    order = {None: "from the job's spec", True: "from the parent job, unverified", False: "from the signed spec"}[has_parent]
    texts: dict[str | None, str] = {ReasonSource.ORDER: order, ReasonSource.PROGRAM: "written by the program, unverified"}
    return texts.get(source, "its source was not recorded")


Beyond = Literal["none", "ask", "policy"]
"""What happens to access and tool calls that the order does not name, strictest first: `none` refuses them, `ask` always asks a person, and
`policy` leaves them to policy.
"""
BEYOND_TEXTS: Mapping[Beyond, str] = {
    "none": "refused",
    "ask": "only if a person approves it",
    "policy": "as policy decides",
}
BEYOND_ORDER = "beyond-order"
"""The policy id in a decision if the order does not name the access, and refuses it or requires an approver."""


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
        return self not in {JobState.PENDING, JobState.AWAITING_APPROVAL, JobState.RUNNING, JobState.REVOKING}

    @property
    def is_stopped(self) -> bool:
        """Whether people ended the job on purpose, which is neither a success nor a failure."""
        return self in {JobState.CANCELLED, JobState.KILLED}


class RequestState(StrEnum):
    PENDING = "pending"
    ALLOWED = "allowed"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"

    @property
    def granted(self) -> bool:
        """Whether a credential may be issued for the request."""
        return self in {RequestState.ALLOWED, RequestState.APPROVED}


class CredentialState(StrEnum):
    ISSUED = "issued"
    REVOKING = "revoking"
    REVOKED = "revoked"
    CONFIRMED = "confirmed"
    OVERDUE = "overdue"
    RESIDUAL = "residual"
    """Its job's access is revoked, but this credential cannot be revoked: it is valid until it expires, or until its owner changes it."""
    EXPIRED = "expired"

    @property
    def is_dead(self) -> bool:
        """Whether it can no longer be used: its end was verified, or its ttl has passed."""
        return self in {CredentialState.CONFIRMED, CredentialState.EXPIRED}

    @property
    def is_settled(self) -> bool:
        """Whether revoking it again would change nothing: it is dead, or it cannot be revoked."""
        return self.is_dead or self is CredentialState.RESIDUAL


class RevocationState(StrEnum):
    NONE = "none"
    PENDING = "pending"
    CONFIRMED = "confirmed"
    RESIDUAL = "residual"
    """Confirmed for everything that can be revoked; some credentials cannot be revoked and are still valid."""
    OVERDUE = "overdue"

    @property
    def is_proven(self) -> bool:
        """Whether everything that can be revoked was found dead."""
        return self in {RevocationState.CONFIRMED, RevocationState.RESIDUAL}

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to revoke."""
        return self.is_proven or self is RevocationState.NONE
