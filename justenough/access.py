"""What a job may ask for and what became of it: actions, requests, decisions, grants, credentials. No I/O, no clock."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal, Self

from justenough.model import Message


class Action(StrEnum):
    """What is done to a resource. Each is a credential of its own, never a superset."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """How much it can do, least first: whoever approves may allow one of less rank than was asked for."""
        return tuple(Action).index(self)


class Sensitivity(IntEnum):
    """How much harm a leak does; written by name in the catalog, compared by number in policies."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3


class Revocable(StrEnum):
    """What revoking a credential can achieve; approvers see it."""

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


class RevocationState(StrEnum):
    NONE = "none"
    PENDING = "pending"
    CONFIRMED = "confirmed"
    OVERDUE = "overdue"


class Held(Message):
    """What a job holds and has touched when a request is decided; issuing counts as touching."""

    held: frozenset[str] = frozenset()
    """Live now, each as `resource:action`."""
    touched: Sensitivity = Sensitivity.PUBLIC
    touched_resources: frozenset[str] = frozenset()
    issued_count: int = 0
    """Credentials issued so far, whatever became of them."""

    def issued(self, resource: str, action: Action, sensitivity: Sensitivity) -> Self:
        """Return what is held and touched once a credential has been issued."""
        return self.model_copy(
            update={
                "held": self.held | {f"{resource}:{action}"},
                "touched": max(self.touched, sensitivity),
                "touched_resources": self.touched_resources | {resource},
                "issued_count": self.issued_count + 1,
            }
        )

    def inherits(self, other: Held) -> Self:
        """Return what is touched where what another job touched counts too; what that job holds and was issued is its own."""
        return self.model_copy(
            update={
                "touched": max(self.touched, other.touched),
                "touched_resources": self.touched_resources | other.touched_resources,
            }
        )

    def returned(self, resource: str, action: Action) -> Self:
        """Return what is held once a credential has ended; what was touched stays touched."""
        return self.model_copy(update={"held": self.held - {f"{resource}:{action}"}})


class Decision(Message):
    """What policy says of one request, with the reasons. A value that explains itself."""

    outcome: Literal["allowed", "needs_approval", "denied"]
    tier: int = 0
    """The least approval tier that policy accepts: 0 for allowed; meaningless for denied."""
    policies: tuple[str, ...] = ()
    """The `@id`s of the policies that decided."""
    policy_digest: str = ""
    """`sha256:…` of the policy set."""
    errors: tuple[str, ...] = ()
    """Evaluation errors; any of them makes the outcome denied."""


class Credential(Message):
    """The handle of what Vault issued: enough to revoke it, never the secret."""

    id: str
    request_id: str
    resource: str
    action: Action
    lease_id: str | None
    """None where the engine gives none (kv)."""
    accessor: str | None
    """Of the token it was issued with; None where it is not known whether it was issued at all."""
    issued_at: datetime
    expires_at: datetime
    revocable: Revocable
    certificate: str | None = None
    """Where in Vault a certificate is (`pki/cert/<serial>`) whose revocation is looked at; None for all else."""

    @property
    def handles(self) -> frozenset[str]:
        """What Vault knows it by, as far as anyone learned it."""
        return frozenset(handle for handle in (self.lease_id, self.accessor, self.certificate) if handle is not None)
