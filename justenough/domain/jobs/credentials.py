"""Policy decisions, credential handles, and the access that a job holds. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import Action, Revocable, Sensitivity


class HeldAccess(Message):
    """The access that a job holds, and the resources that it has touched, at the time of a policy decision. Issuing counts as touching."""

    held: frozenset[str] = frozenset()
    """Currently active access, each as `resource:action`."""
    touched: Sensitivity = Sensitivity.PUBLIC
    touched_resources: frozenset[str] = frozenset()
    issued_count: int = 0
    """Credentials issued so far, including ended ones."""

    def with_issued(self, resource: str, action: Action, sensitivity: Sensitivity) -> Self:
        """Return a copy with one more issued credential."""
        return self.model_copy(
            update={
                "held": self.held | {f"{resource}:{action}"},
                "touched": max(self.touched, sensitivity),
                "touched_resources": self.touched_resources | {resource},
                "issued_count": self.issued_count + 1,
            }
        )

    def with_inherited(self, other: HeldAccess) -> Self:
        """Return a copy that also counts what another job touched, but not what that job holds or was issued."""
        return self.model_copy(
            update={
                "touched": max(self.touched, other.touched),
                "touched_resources": self.touched_resources | other.touched_resources,
            }
        )

    def with_ended(self, resource: str, action: Action) -> Self:
        """Return a copy without the access of an ended credential; touched resources stay touched."""
        return self.model_copy(update={"held": self.held - {f"{resource}:{action}"}})


class Decision(Message):
    """Policy's decision on one request, with its reasons."""

    outcome: Literal["allowed", "needs_approval", "denied"]
    tier: int = 0
    """The lowest approval tier that policy accepts: 0 if allowed; meaningless if denied."""
    policies: tuple[str, ...] = ()
    """The `@id`s of the policies that decided."""
    policy_digest: str = ""
    """`sha256:…` of the policy set."""
    errors: tuple[str, ...] = ()
    """Evaluation errors; any error makes the outcome denied."""

    def is_like(self, other: Decision) -> bool:
        """Whether another decision has the same outcome by the same policies. Policies that did not decide may differ."""
        return (self.outcome, self.tier, self.policies) == (other.outcome, other.tier, other.policies)


class CredentialHandle(Message):
    """The handle of an issued credential: enough to revoke it, never the secret."""

    id: str
    request_id: str
    resource: str
    action: Action
    lease_id: str | None
    """None if the secrets engine creates no lease (kv)."""
    accessor: str | None
    """Accessor of the token it was issued with; None if it is unknown whether the credential was issued."""
    issued_at: datetime
    expires_at: datetime
    revocable: Revocable
    certificate: str | None = None
    """The Vault path of its certificate (`pki/cert/<serial>`), whose revocation is checked; None for other credentials."""
    held_by_job: bool = True
    """Whether the job itself got it; False if only the worker used it, for a model or a tool call."""
    user: str | None = None
    """The name of its user in its target, from Vault's answer; None if the action has no target or the answer was lost."""
    target_digest: str | None = None
    """The digest of the target in which its user was found alive; None if its user was never found."""
    search_digest: str | None = None
    """The digest under which, when the credential was issued, a search by job id was known to find users like this one; None if that was
    not known.
    """

    @property
    def handles(self) -> frozenset[str]:
        """Its known ids in Vault: lease, accessor, certificate."""
        return frozenset(handle for handle in (self.lease_id, self.accessor, self.certificate) if handle is not None)

    def is_residual(self, *, at: datetime) -> bool:
        """Whether it is still valid after its job's access was revoked: the job had it, and it cannot be revoked."""
        if self.revocable is Revocable.NOW or not self.held_by_job:
            return False
        return self.revocable is Revocable.NEVER or at < self.expires_at
