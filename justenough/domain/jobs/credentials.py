"""What a job holds: decisions and credentials as values. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import Action, Revocable, Sensitivity


class HeldAccess(Message):
    """What a job holds and has touched when a request is decided; issuing counts as touching."""

    held: frozenset[str] = frozenset()
    """Live now, each as `resource:action`."""
    touched: Sensitivity = Sensitivity.PUBLIC
    touched_resources: frozenset[str] = frozenset()
    issued_count: int = 0
    """Credentials issued so far, whatever became of them."""

    def with_issued(self, resource: str, action: Action, sensitivity: Sensitivity) -> Self:
        """Return what is held and touched once a credential has been issued."""
        return self.model_copy(
            update={
                "held": self.held | {f"{resource}:{action}"},
                "touched": max(self.touched, sensitivity),
                "touched_resources": self.touched_resources | {resource},
                "issued_count": self.issued_count + 1,
            }
        )

    def with_inherited(self, other: HeldAccess) -> Self:
        """Return what is touched where what another job touched counts too; what that job holds and was issued is its own."""
        return self.model_copy(
            update={
                "touched": max(self.touched, other.touched),
                "touched_resources": self.touched_resources | other.touched_resources,
            }
        )

    def with_ended(self, resource: str, action: Action) -> Self:
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


class CredentialHandle(Message):
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
